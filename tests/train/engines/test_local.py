"""The local engine: figures, refusals, precision, and copies on several processes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.engines.processes import run_processes
from tests.train.small import TERMS, model, plan, planner
from understudy.errors import TrainError
from understudy.train.adapter import ModelAdapter
from understudy.train.attention.cpu import CpuBackend
from understudy.train.engines.local import LocalEngine
from understudy.train.runner import TreeRunner

COEFFICIENTS = dict(zip(TERMS, (1.0, 0.5), strict=True))


def engine_of(network: nn.Module, autocast_dtype: torch.dtype | None = None, **arguments: object) -> LocalEngine:
    adapter = ModelAdapter(network)
    runner = TreeRunner(adapter, CpuBackend(), autocast_dtype=autocast_dtype)
    return LocalEngine(adapter, runner, coefficients=COEFFICIENTS, source_names=("first", "second"), **arguments)


def train(engine: LocalEngine, step_plan) -> object:
    return engine.forward_backward(step_plan, engine.global_weight_sums(step_plan))


def test_figures_by_term_and_source_add_up_to_the_loss() -> None:
    stats = train(engine_of(model()), plan())
    assert stats.loss == pytest.approx(sum(COEFFICIENTS[term] * stats.terms[term].loss for term in TERMS))
    for term in TERMS:
        parts = [stats.sources[source][term] for source in ("first", "second")]
        weight = sum(part.weight for part in parts)
        assert stats.terms[term].weight == pytest.approx(weight)
        assert stats.terms[term].loss == pytest.approx(sum(part.weight * part.loss for part in parts) / weight)
        assert stats.terms[term].perplexity == pytest.approx(math.exp(stats.terms[term].loss))
        assert 0 <= stats.terms[term].accuracy <= 1
    assert 0 < stats.num_tokens < stats.num_row_tokens
    assert stats.tree_saving == pytest.approx(1 - stats.num_tokens / stats.num_row_tokens)


def test_accuracy_is_the_share_of_weight_predicted_right() -> None:
    network = model()
    engine = engine_of(network, optimizer=torch.optim.AdamW(network.parameters(), lr=1e-2))
    fixed = plan(2)
    first = train(engine, fixed)
    engine.optimizer_step(first)
    for _ in range(60):
        last = train(engine, fixed)
        engine.optimizer_step(last)
    assert first.terms["behavioral_cloning"].accuracy < 0.3
    assert last.terms["behavioral_cloning"].accuracy > 0.9


def test_evaluation_measures_what_training_does_and_leaves_no_trace() -> None:
    network = model()
    engine = engine_of(network)
    evaluated = engine.evaluate([plan()])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training
    trained = train(engine, plan())
    assert evaluated.loss == pytest.approx(trained.loss, rel=1e-6)
    assert evaluated.terms.keys() == trained.terms.keys()


def test_evaluation_over_several_plans_is_one_mean_over_all() -> None:
    parts = planner(6, batch_size=2, shuffle=False)
    engine = engine_of(model())
    whole = engine.evaluate([planner(6, batch_size=6, shuffle=False).plan(0)])
    assert engine.evaluate(parts.plan(step) for step in range(3)).loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_rows() -> None:
    network = model()
    engine = engine_of(network, optimizer=torch.optim.AdamW(network.parameters(), lr=1e-2))
    fixed = plan(3)
    label = int(fixed.micro_batches[0].forest.targets.label[-1])
    with torch.no_grad():
        network.get_output_embeddings().weight[label] = float("nan")
    before = {name: p.clone() for name, p in network.named_parameters()}
    with pytest.raises(TrainError, match=r"loss is nan.*not taken.*rows\.jsonl:\d"):
        engine.optimizer_step(train(engine, fixed))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, before[name], equal_nan=True)


def test_gradients_that_are_not_finite_stop_before_the_step() -> None:
    network = model()
    engine = engine_of(network, optimizer=torch.optim.SGD(network.parameters(), lr=1e-2))
    stats = train(engine, plan(2))
    next(network.parameters()).grad[0, 0] = float("inf")
    with pytest.raises(TrainError, match="gradient norm is"):
        engine.optimizer_step(stats)


def test_gradients_are_clipped_to_the_norm() -> None:
    network = model()
    engine = engine_of(network, optimizer=torch.optim.SGD(network.parameters(), lr=1.0), max_grad_norm=1e-3)
    before = [p.detach().clone() for p in network.parameters()]
    stats = train(engine, plan(2))
    engine.optimizer_step(stats)
    assert stats.grad_norm is not None
    assert stats.grad_norm > 1e-3
    moved = sum((p - q).square().sum().item() for p, q in zip(network.parameters(), before, strict=True)) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    network = model()
    exact = train(engine_of(network), plan())
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if dtype == torch.float16 else None
    engine = engine_of(network, dtype, optimizer=torch.optim.SGD(network.parameters(), lr=0.0), scaler=scaler)
    stats = train(engine, plan())
    assert stats.loss == pytest.approx(exact.loss, rel=1e-2)
    scale = 1024.0 if scaler else 1.0
    error = sum(float((p.grad / scale - gradients[n]).square().sum()) for n, p in network.named_parameters())
    assert (error / sum(float(g.square().sum()) for g in gradients.values())) ** 0.5 < 3e-2
    engine.optimizer_step(stats)
    assert stats.grad_norm == pytest.approx(sum(float(g.square().sum()) for g in gradients.values()) ** 0.5, rel=3e-2)


def test_an_fp16_overflow_lowers_the_scale_and_skips_the_step() -> None:
    network = model()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    engine = engine_of(network, torch.float16, optimizer=optimizer, scaler=scaler)
    before = [p.detach().clone() for p in network.parameters()]
    stats = train(engine, plan(2))
    engine.optimizer_step(stats)
    assert stats.skipped
    assert scaler.get_scale() < 2.0**40
    torch.testing.assert_close(list(network.parameters()), before)


def test_state_goes_on_where_it_was_left() -> None:
    networks = [model(), model()]
    engines = [engine_of(n, optimizer=torch.optim.AdamW(n.parameters(), lr=1e-2)) for n in networks]
    steps = planner(6, batch_size=2)
    for step in range(2):
        engines[0].optimizer_step(train(engines[0], steps.plan(step)))
    networks[1].load_state_dict(networks[0].state_dict())
    engines[1].load_state(copy.deepcopy(engines[0].state()))
    for engine in engines:
        engine.optimizer_step(train(engine, steps.plan(2)))
    torch.testing.assert_close(*(list(n.parameters()) for n in networks), rtol=0, atol=0)


def test_gradient_checkpointing_changes_nothing() -> None:
    network = model()
    expected = train(engine_of(network), plan()).loss
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    engine = engine_of(network)
    engine.adapter.enable_gradient_checkpointing()
    assert train(engine, plan()).loss == pytest.approx(expected, rel=1e-7)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


def _work(rank: int, num_examples: int) -> dict[str, object]:
    network = model(seed=rank)  # rank 0's weights must win
    engine = engine_of(network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1))
    losses = []
    steps = planner(num_examples, batch_size=3, world_size=2)
    for step in range(3):
        stats = train(engine, steps.plan(step, rank))
        engine.optimizer_step(stats)
        losses.append((stats.loss, stats.grad_norm, stats.num_row_tokens))
    evaluated = engine.evaluate([steps.plan(0, rank)]).loss
    return {"losses": losses, "eval": evaluated, "weights": network.state_dict()}


@pytest.mark.parametrize("num_examples", [7, 1])
def test_two_processes_compute_what_one_does(num_examples: int, tmp_path: Path) -> None:
    """With 7 examples the shares are uneven and the last step has one example, so one rank has none."""
    ranks = run_processes(_work, 2, tmp_path, num_examples)
    network = model(seed=0)
    engine = engine_of(network, optimizer=torch.optim.SGD(network.parameters(), lr=0.1))
    steps = planner(num_examples, batch_size=3)
    expected = []
    for step in range(3):
        stats = train(engine, steps.plan(step))
        engine.optimizer_step(stats)
        expected.append((stats.loss, stats.grad_norm, stats.num_row_tokens))
    for found in ranks:
        for a, b in zip(found["losses"], expected, strict=True):
            assert a == pytest.approx(b, rel=1e-5)
        assert found["eval"] == pytest.approx(engine.evaluate([steps.plan(0)]).loss, rel=1e-5)
        torch.testing.assert_close(dict(found["weights"]), dict(network.state_dict()), rtol=1e-5, atol=1e-6)
