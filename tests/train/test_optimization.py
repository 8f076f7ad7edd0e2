from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from understudy.models.tiny import tiny_model
from understudy.train.config import TrainSection
from understudy.train.optimization import make_optimizer, make_scheduler, num_steps


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def rates(config: TrainSection, steps: int) -> list[float]:
    """Return the learning rate that each step uses."""
    optimizer = make_optimizer(model(), config)
    scheduler = make_scheduler(optimizer, config, steps)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def test_biases_and_norms_do_not_decay() -> None:
    network = model()
    decayed, others = make_optimizer(network, TrainSection(weight_decay=0.1)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3), (2, 4)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(others["params"]) == len(list(network.parameters()))


def test_the_biases_of_experts_do_not_decay_although_they_are_matrices() -> None:
    network = tiny_model("gpt_oss", vocab_size=40, hidden_size=32)
    held = {id(p) for p in make_optimizer(network, TrainSection(weight_decay=0.1)).param_groups[0]["params"]}
    decayed = {name.rpartition(".")[2] for name, parameter in network.named_parameters() if id(parameter) in held}
    assert decayed == {"weight", "gate_up_proj", "down_proj"}


def test_frozen_parameters_are_left_out() -> None:
    network = model()
    network[0].requires_grad_(False)
    held = {id(p) for group in make_optimizer(network, TrainSection()).param_groups for p in group["params"]}
    assert held == {id(p) for p in network.parameters() if p.requires_grad}


def test_the_optimiser_is_torchs_adamw_with_the_configs_numbers() -> None:
    config = TrainSection(learning_rate=0.01, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, weight_decay=0.1)
    optimizer = make_optimizer(model(), config)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults | {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "fused": True} == optimizer.defaults


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_schedule_is_transformers_own(name: str) -> None:
    config = TrainSection(learning_rate=0.5, lr_scheduler_type=name, warmup_steps=4)
    optimizer = make_optimizer(model(), config)
    reference = get_scheduler(name, make_optimizer(model(), config), num_warmup_steps=4, num_training_steps=20)
    expected = []
    for _ in range(20):
        expected.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()
    assert rates(config, 20) == expected
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_constant_rate_may_warm_up_too() -> None:
    found = rates(TrainSection(learning_rate=1.0, lr_scheduler_type="constant", warmup_ratio=0.2), 10)
    assert found == [0.0, 0.5, *[1.0] * 8]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_train_epochs": 3}, 21),
        ({"num_train_epochs": 0.5}, 4),
        ({"num_train_epochs": 0.01}, 1),
        ({"num_train_epochs": 3, "max_steps": 5}, 5),
    ],
)
def test_a_run_is_as_long_as_epochs_or_steps_say(config: dict, expected: int) -> None:
    assert num_steps(TrainSection(**config), steps_per_epoch=7) == expected
