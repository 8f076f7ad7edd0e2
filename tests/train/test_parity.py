"""Training on trees is training on separate rows: the same loss, and the same gradient of every parameter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from understudy import registry
from understudy.batching import LAYOUTS, Layout, Planner, Sampler, Source, StepPlan, make_example
from understudy.models.tiny import tiny_model
from understudy.objectives import Objective
from understudy.train.adapter import ModelAdapter
from understudy.train.attention import Backend
from understudy.train.attention.cpu import CpuBackend
from understudy.train.attention.dense import DenseBackend
from understudy.train.engines.local import LocalEngine
from understudy.train.runner import TreeRunner
from understudy.types import Message, TokenTree

from .naive import naive_step, relative_difference, take_gradients, token_losses
from .tau_bench import Rendered, rendered, tiny_renderer

SHAPES = ("episode", "turn")
ARCHITECTURES = ("qwen3", "llama", "qwen3_moe", "mistral", "gpt_oss")
OBJECTIVES = {
    "behavioral_cloning": {},
    "world_model": {},
    "combined": {"bc_weight": 0.7, "world_model_weight": 0.4},
}
PRECISIONS = {torch.float32: 1e-5, torch.float64: 1e-10}


class _DoubleTorch:
    """Stands in for `torch` in a model's source file, where norms and routers compute in float32 whatever comes in.

    Both sides of a comparison run the same file, so float64 parity is then not hidden behind float32 rounding.
    """

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@pytest.fixture
def make_model(test_data: Path, monkeypatch: pytest.MonkeyPatch):
    vocab_size = tiny_renderer(test_data).tokenizer.backend.get_vocab_size()

    def make(architecture: str, dtype: torch.dtype = torch.float32, **overrides: object) -> nn.Module:
        model = tiny_model(
            architecture,
            vocab_size=vocab_size,
            hidden_size=32,
            dtype=dtype,
            experts_implementation="eager",  # the others have no float64
            **overrides,
        )
        if dtype == torch.float64:
            monkeypatch.setattr(sys.modules[type(model).__module__], "torch", _DoubleTorch())
        return model.train()

    return make


def plan_of(
    items: Sequence[Rendered], objective: Objective, *, layout: Layout = "depth_first", max_tokens: int = 200
) -> StepPlan:
    """Return one step that holds everything."""
    examples = [make_example(item.tree, objective.weigh(item.tree, item.trajectory)) for item in items]
    kept = [example for example in examples if example is not None]
    sampler = Sampler([len(kept)], batch_size=len(kept), seed=0)
    return Planner([Source("data", kept)], sampler, layout=layout, max_tokens_per_batch=max_tokens).plan(0)


def tree_step(model: nn.Module, plan: StepPlan, objective: Objective, backend: Backend, **runner: int) -> float:
    """Run a step and leave its gradients on the parameters; return the loss."""
    adapter = ModelAdapter(model)
    assert adapter.tree_obstacle(backend) is None
    engine = LocalEngine(adapter, TreeRunner(adapter, backend, **runner), coefficients=objective.coefficients)
    return engine.forward_backward(plan, engine.global_weight_sums(plan)).loss


def check_parity(
    model: nn.Module, items: Sequence[Rendered], objective: Objective, plan: StepPlan, tolerance: float, **runner: int
) -> None:
    expected = naive_step(model, items, objective.coefficients)
    reference = take_gradients(model)
    assert reference
    loss = tree_step(model, plan, objective, CpuBackend(), **runner)
    assert loss == pytest.approx(expected, rel=tolerance)
    assert relative_difference(take_gradients(model), reference) <= tolerance


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_equal_those_of_separate_rows_for_every_objective(
    architecture: str, dtype: torch.dtype, shape: str, make_model, test_data: Path
) -> None:
    items, model = rendered(test_data, shape), make_model(architecture, dtype)
    naive: dict[str, tuple[float, dict[str, torch.Tensor]]] = {}
    for term in ("behavioral_cloning", "world_model"):
        naive[term] = naive_step(model, items, {term: 1.0}), take_gradients(model)
    for name, arguments in OBJECTIVES.items():
        objective = registry.load("objectives", name)(**arguments)
        plan = plan_of(items, objective)
        assert len(plan.micro_batches[0].chunks) > 3, "chunks that see others' keys and values must take part"
        loss = tree_step(model, plan, objective, CpuBackend())
        # Loss and gradients are linear in the coefficients, so the naive trainer need not run once more for the sum.
        expected = sum(factor * naive[term][0] for term, factor in objective.coefficients.items())
        reference = {
            parameter: sum(factor * naive[term][1][parameter] for term, factor in objective.coefficients.items())
            for parameter in naive["world_model"][1]
        }
        assert loss == pytest.approx(expected, rel=PRECISIONS[dtype])
        assert relative_difference(take_gradients(model), reference) <= PRECISIONS[dtype]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("max_held_stems", [0, 1, 100])
def test_every_layout_gives_the_same_step(layout: Layout, max_held_stems: int, make_model, test_data: Path) -> None:
    items = rendered(test_data, "turn")
    objective = registry.load("objectives", "combined")()
    plan = plan_of(items, objective, layout=layout, max_tokens=200 if layout == "depth_first" else 1500)
    check_parity(make_model("mistral"), items, objective, plan, 1e-5, max_held_stems=max_held_stems)


@pytest.mark.parametrize("max_tokens", [1, 37, 10**6])
def test_the_size_of_chunks_changes_nothing(max_tokens: int, make_model, test_data: Path) -> None:
    items = rendered(test_data, "episode", 1, 4)
    objective = registry.load("objectives", "combined")()
    plan = plan_of(items, objective, max_tokens=max_tokens)
    check_parity(make_model("qwen3", num_layers=1), items, objective, plan, 1e-5)


@pytest.mark.parametrize("window", [1, 7, 10**6])
def test_sliding_windows_of_any_size_are_right(window: int, make_model, test_data: Path) -> None:
    items = rendered(test_data, "turn")
    objective = registry.load("objectives", "behavioral_cloning")()
    check_parity(make_model("mistral", sliding_window=window), items, objective, plan_of(items, objective), 1e-5)


def test_the_dense_reference_backend_agrees(make_model, test_data: Path) -> None:
    items, model = rendered(test_data, "episode"), make_model("gpt_oss", torch.float64)
    objective = registry.load("objectives", "combined")()
    plan = plan_of(items, objective)
    losses, gradients = [], []
    for backend in (CpuBackend(), DenseBackend()):
        losses.append(tree_step(model, plan, objective, backend))
        gradients.append(take_gradients(model))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert relative_difference(*gradients) <= 1e-12


def test_first_tokens_after_a_branch_are_predicted_by_their_parent(make_model, test_data: Path) -> None:
    """Two actions in one place, as a correction beside the agent's own; only their first tokens are weighed."""
    model, item = make_model("qwen3", torch.float64), rendered(test_data, "turn")[-1]
    turns = item.trajectory.turns
    other = replace(turns[-1], action=Message("assistant", "Something else entirely."))
    trajectory = replace(item.trajectory, turns=(*turns, other))
    tree = tiny_renderer(test_data).render(trajectory).tree
    num_children = np.bincount(tree.parent[tree.parent >= 0], minlength=tree.num_tokens)
    first = (num_children[tree.parent] > 1) & (tree.action_weights() > 0)
    assert first.sum() >= 2
    rows = [tree.sequence_ids(index) for index, (_, spans) in enumerate(tree.sequences)]
    depths = {int(depth) for depth in tree.depth[first]}
    with torch.no_grad():
        own = {
            (tuple(ids[: depth + 1])): float(token_losses(model, ids)[depth - 1]) for ids in rows for depth in depths
        }
    paths = [tuple(tree.ids[_ancestry(tree, int(token))]) for token in np.flatnonzero(first)]
    objective = registry.load("objectives", "behavioral_cloning")()
    example = make_example(tree, {"behavioral_cloning": first.astype(float)})
    plan = Planner([Source("data", [example])], Sampler([1], batch_size=1, seed=0), max_tokens_per_batch=50).plan(0)
    loss = tree_step(model, plan, objective, CpuBackend())
    assert loss == pytest.approx(np.mean([own[path] for path in paths]), rel=1e-12)


def _ancestry(tree: TokenTree, token: int) -> list[int]:
    path = []
    while token >= 0:
        path.append(token)
        token = int(tree.parent[token])
    return path[::-1]


def test_lora_adapters_get_the_same_gradients(make_model, test_data: Path) -> None:
    peft = pytest.importorskip("peft")
    items = rendered(test_data, "turn")
    objective = registry.load("objectives", "combined")()
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(make_model("qwen3", torch.float64), config).train()
    check_parity(model, items, objective, plan_of(items, objective), 1e-10)
    assert all("lora" in name for name, p in model.named_parameters() if p.requires_grad)


def test_the_loss_curve_of_30_steps_is_the_naive_trainers(make_model, test_data: Path) -> None:
    items = rendered(test_data, "turn", 4)
    objective = registry.load("objectives", "combined")()
    examples = [make_example(item.tree, objective.weigh(item.tree, item.trajectory)) for item in items]
    sampler = Sampler([len(items)], batch_size=4, seed=1)
    planner = Planner([Source("data", examples)], sampler, max_tokens_per_batch=300)
    naive_model, tree_model = make_model("qwen3"), make_model("qwen3")
    naive_optimizer = torch.optim.AdamW(naive_model.parameters(), lr=1e-3)
    adapter = ModelAdapter(tree_model)
    engine = LocalEngine(
        adapter,
        TreeRunner(adapter, CpuBackend()),
        coefficients=objective.coefficients,
        optimizer=torch.optim.AdamW(tree_model.parameters(), lr=1e-3),
    )
    expected, found = [], []
    for step in range(30):
        expected.append(
            naive_step(naive_model, [items[index] for _, index in sampler.draw(step)], objective.coefficients)
        )
        nn.utils.clip_grad_norm_(naive_model.parameters(), 1.0)
        naive_optimizer.step()
        naive_optimizer.zero_grad()
        plan = planner.plan(step)
        stats = engine.forward_backward(plan, engine.global_weight_sums(plan))
        engine.optimizer_step(stats)
        found.append(stats.loss)
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.5, "the models must really have trained"
