"""Layers cut by heads over two or four of four processes, held against the local engine on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.train.engines.processes import run_processes
from tests.train.engines.test_sharded import (
    Case,
    assert_computes_the_same,
    assert_goes_on_with_what_the_other_began,
    assert_same_figures,
    plans,
    run_local,
    run_sharded,
    sharded_engine,
)

CASES = {
    "shards": Case(tp_size=2),
    "alone": Case(tp_size=4, num_kv_heads=4, tied=False, num_examples=1, gradient_checkpointing=True, self_check=False),
    "copies": Case("llama", tp_size=2, num_copies=2, tied=False, rows=True, biases=True),
    "lora": Case("llama", tp_size=2, lora=True, gradient_checkpointing=True, self_check=False),
    "fp16": Case(tp_size=2, autocast_dtype=torch.float16),
}
EXACT = [name for name in CASES if name != "fp16"]


def _work(rank: int, local: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: run_sharded(case, local[name]) for name, case in CASES.items()}
    found["gradients"] = _gradients(Case(tp_size=2, lora=True, dropout=0.5))
    found["overflow"] = _overflow_on(rank == 3)
    found["unfinished"] = torch._C._distributed_c10d._get_work_registry_size()
    return found


def _gradients(case: Case) -> dict[str, Any]:
    """Return the gradients of what each process has whole, as its own backward passes made them."""
    engine = sharded_engine(case)
    torch.manual_seed(engine.rank)
    engine._finish_gradients = lambda: None
    step_plan = plans(case, engine.world_size).plan(0, engine.rank)
    engine.forward_backward(step_plan, engine.global_weight_sums(step_plan))
    whole = {name: p for name, p in engine.adapter.model.named_parameters() if "tp" not in p.device_mesh.mesh_dim_names}
    return {name: p.grad.to_local() for name, p in whole.items() if p.requires_grad}


def _overflow_on(is_here: bool) -> tuple[bool, float]:
    """Take a step with a gradient that is infinite in a part that one process alone has."""
    case = CASES["fp16"]
    engine = sharded_engine(case)
    step_plan = plans(case, engine.world_size).plan(0, engine.rank)
    stats = engine.forward_backward(step_plan, engine.global_weight_sums(step_plan))
    if is_here:
        engine.adapter.backbone.layers[0].self_attn.q_proj.weight.grad.to_local().fill_(torch.inf)
    engine.optimizer_step(stats)
    return stats.skipped, engine._scaler.get_scale()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the local engine did with every case, and what each of four processes did."""
    local = {name: run_local(case) for name, case in CASES.items()}
    return local, run_processes(_work, 4, tmp_path_factory.mktemp("parallel"), local)


@pytest.mark.parametrize("name", EXACT)
def test_processes_with_parts_of_layers_compute_what_one_process_does(runs, name: str) -> None:
    local, ranks = runs
    assert_computes_the_same(local[name], [rank[name] for rank in ranks])


def test_half_precision_is_as_near_as_on_one_process(runs) -> None:
    local, ranks = runs
    for found in (rank["fp16"] for rank in ranks):
        assert_same_figures(found["start"] + found["rest"], local["fp16"]["start"] + local["fp16"]["rest"], 0.02)
    assert {tensor.dtype for tensor in ranks[0]["fp16"]["weights"].values()} == {torch.float32}


@pytest.mark.parametrize("name", EXACT)
def test_either_engine_goes_on_with_what_the_other_began(runs, name: str) -> None:
    local, ranks = runs
    assert_goes_on_with_what_the_other_began(CASES[name], local[name], [rank[name] for rank in ranks])


def test_trees_are_held_against_rows_in_parts_too(runs) -> None:
    for rank in runs[1]:
        assert rank["shards"]["check"].gradient_difference < 1e-5
        assert rank["shards"]["check"].num_rows > 1


def test_neighbours_have_the_same_gradients_of_what_they_have_whole_also_with_dropout(runs) -> None:
    first, second, *others = [rank["gradients"] for rank in runs[1]]
    assert len(first) == 2 * 7  # each layer's adapters have one matrix whole
    for a, b in ((first, second), others):
        assert all(torch.equal(a[name], b[name]) for name in first)


def test_an_overflow_in_the_part_of_one_process_skips_the_step_on_all(runs) -> None:
    assert [rank["overflow"] for rank in runs[1]] == [(True, 512.0)] * 4


def test_nothing_that_is_sent_between_processes_is_left_waiting(runs) -> None:
    assert [rank["unfinished"] for rank in runs[1]] == [0] * 4  # torch would hold it for ever


def test_all_processes_report_the_very_same_figures(runs) -> None:
    for name in CASES:
        for key in ("start", "rest", "evaluated", "resumed"):
            assert all(rank[name][key] == runs[1][0][name][key] for rank in runs[1])
