from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training import config, make_base
from understudy.api import dry_run


def estimate(base: Path, **sections: Any) -> Any:
    return dry_run(config(base, Path("nowhere"), **sections))


def test_weights_gradients_and_moments_are_counted_exactly(base) -> None:
    found = estimate(base)
    weights = sum(p.nbytes for p in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert (found.memory.weights, found.memory.gradients, found.memory.optimizer) == (weights, weights, 2 * weights)
    assert found.memory.total > 4 * weights


def test_an_adapter_needs_gradients_and_moments_for_itself_only(base) -> None:
    found = estimate(base, lora={"lora_r": 2})
    assert found.memory.gradients == 4 * found.num_trained
    assert found.memory.optimizer == 8 * found.num_trained
    assert found.num_trained < found.num_parameters / 5


def test_the_frozen_layers_of_a_base_in_4_bits_are_counted_as_such(base) -> None:
    whole, quantised = (estimate(base, lora={"lora_r": 2}, model={"load_in_4bit": bits}) for bits in (False, True))
    network = AutoModelForCausalLM.from_pretrained(base)
    layers = [module for name, module in network.model.named_modules() if isinstance(module, torch.nn.Linear)]
    num_in_4bit = sum(layer.weight.numel() for layer in layers)
    assert whole.memory.weights - quantised.memory.weights == pytest.approx(num_in_4bit * (4 - 0.516), rel=1e-3)


def test_muon_keeps_one_moment_of_the_matrices_of_hidden_layers(base) -> None:
    found = estimate(base, train={"optim": "muon"})
    matrices = [p for p in AutoModelForCausalLM.from_pretrained(base).model.layers.parameters() if p.ndim == 2]
    assert found.memory.optimizer == 2 * found.memory.weights - sum(p.nbytes for p in matrices)


def test_of_a_sharded_model_a_device_holds_its_part_and_what_a_pass_puts_together(tmp_path, monkeypatch) -> None:
    base = make_base(tmp_path / "deep", num_layers=4)
    whole = estimate(base, train={"fsdp": True}).memory  # one process, one shard
    monkeypatch.setenv("WORLD_SIZE", "4")
    copies, part = (estimate(base, train={"fsdp": fsdp}).memory for fsdp in (False, True))
    assert whole.weights == copies.weights == 4 * part.weights
    assert (copies.gradients, copies.optimizer) == (4 * part.gradients, 4 * part.optimizer)
    assert whole.gathered == copies.gathered == 0
    network = AutoModelForCausalLM.from_pretrained(base)
    layer = sum(p.nbytes for p in network.model.layers[0].parameters())
    outer = sum(p.nbytes for p in network.parameters()) - 4 * layer
    assert part.gathered == 3 * layer + 2 * outer
    two = estimate(base, train={"fsdp": True, "fsdp_size": 2}).memory
    assert two.weights == 2 * part.weights


def test_of_layers_cut_by_heads_a_device_holds_its_part_of_their_matrices_and_of_what_they_make(
    tmp_path, monkeypatch
) -> None:
    base = make_base(tmp_path / "deep", num_layers=4)
    network = AutoModelForCausalLM.from_pretrained(base)
    matrices = sum(p.nbytes for p in network.model.layers.parameters() if p.ndim == 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    copies, cut, both = (estimate(base, train=train) for train in ({}, {"tp_size": 2}, {"tp_size": 2, "fsdp": True}))
    assert copies.memory.weights - cut.memory.weights == matrices // 2
    assert both.memory.weights == cut.memory.weights // 2
    assert cut.memory.activations < copies.memory.activations
    assert copies.plans.examples_per_step == 2 * cut.plans.examples_per_step == 8


@pytest.mark.parametrize(
    "smaller",
    [
        {"gradient_checkpointing": True},
        {"activation_offloading": True},
        {"bf16": True},
        {"layout": "tree", "max_tokens_per_batch": 600},
    ],
)
def test_what_saves_memory_is_seen_to_save_it(tmp_path, smaller: dict[str, Any]) -> None:
    base = make_base(tmp_path / "deep", num_layers=4)
    at_first = {"layout": "tree", "max_tokens_per_batch": 4096} if "layout" in smaller else {}
    assert estimate(base, train=smaller).memory.activations < estimate(base, train=at_first).memory.activations


def test_a_dry_run_plans_the_steps_that_training_takes(base, tmp_path) -> None:
    import understudy

    length = {"max_steps": None, "num_train_epochs": 2}
    settings = config(base, tmp_path / "run", data={"validation_split": 0.2}, train=length)
    planned = understudy.dry_run(settings).plans
    result = understudy.train(settings)
    assert planned.num_steps == result.num_steps == 6
    assert planned.steps_per_epoch == 3
    assert planned.examples_per_step == 2


def test_no_memory_is_taken_for_the_model_that_is_planned(base, monkeypatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(torch.nn.Module, "to", refuse)
    estimate(base)
