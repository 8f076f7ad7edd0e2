from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from understudy.errors import ConfigError
from understudy.models.tiny import tiny_model
from understudy.train.config import TrainSection
from understudy.train.optimization import hidden_matrices, make_optimizer, make_scheduler, num_steps


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


MUON = TrainSection(optim="muon", learning_rate=0.01, muon_learning_rate=0.04, weight_decay=0.1)


def gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_moe", "gpt_oss"])
def test_muon_is_for_matrices_of_hidden_layers(architecture: str) -> None:
    network = tiny_model(architecture, vocab_size=40, hidden_size=32, tie_word_embeddings=architecture != "qwen3_moe")
    found = hidden_matrices(network)
    assert {name.rpartition("layers.")[0] for name in found} == {"model."}
    assert all(parameter.ndim == 2 and not name.endswith("bias") for name, parameter in found.items())
    kinds = {".".join(name.split(".")[3:]) for name in found}
    assert {f"self_attn.{part}_proj.weight" for part in "qkvo"} <= kinds
    assert not any("experts" in kind for kind in kinds)
    assert ("mlp.gate_proj.weight" in kinds) == (architecture == "qwen3")


def test_muon_and_adamw_are_torchs_own_each_with_its_part() -> None:
    network, reference = (tiny_model("qwen3", vocab_size=40, hidden_size=32) for _ in range(2))
    optimizer = make_optimizer(network, MUON)
    matrices = hidden_matrices(reference)
    rest = {name: parameter for name, parameter in reference.named_parameters() if name not in matrices}
    muon = torch.optim.Muon(matrices.values(), lr=0.04, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    embeddings = {"params": [p for p in rest.values() if p.ndim == 2], "weight_decay": 0.1}
    adamw = torch.optim.AdamW(
        [embeddings, {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0}], lr=0.01, fused=True
    )
    for step in range(3):
        for model in (network, reference):
            gradients(model, step)
        optimizer.step()
        muon.step()
        adamw.step()
    for parameter, expected in zip(network.parameters(), reference.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_muon_and_adamw_follow_one_schedule_and_go_on_from_what_was_saved() -> None:
    config = MUON.model_copy(update={"lr_scheduler_type": "linear"})
    network = tiny_model("qwen3", vocab_size=40, hidden_size=32)
    optimizer = make_optimizer(network, config)
    scheduler = make_scheduler(optimizer, config, 4)

    def step(number: int, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> None:
        gradients(model, number)
        optimizer.step()
        scheduler.step()
        assert [group["lr"] for group in optimizer.param_groups] == [
            rate * (3 - number) / 4 for rate in (0.01, 0.01, 0.04)
        ]
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())

    for number in range(2):
        step(number, network, optimizer, scheduler)
    other = copy.deepcopy(network)
    resumed = make_optimizer(other, config)
    resumed_scheduler = make_scheduler(resumed, config, 4)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    for number in range(2, 4):
        step(number, network, optimizer, scheduler)
        step(number, other, resumed, resumed_scheduler)
    for parameter, expected in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_muon_takes_the_common_rate_where_it_has_none_of_its_own() -> None:
    config = MUON.model_copy(update={"muon_learning_rate": None})
    optimizer = make_optimizer(tiny_model("qwen3", vocab_size=40, hidden_size=32), config)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_muon_refuses_a_model_of_which_it_would_train_nothing() -> None:
    network = tiny_model("qwen3", vocab_size=40, hidden_size=32)
    network.model.layers.requires_grad_(False)
    with pytest.raises(ConfigError, match="none is trained; take adamw_torch"):
        make_optimizer(network, MUON)


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
