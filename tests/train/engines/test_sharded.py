"""The sharded engine on two processes, held against the local engine on one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.train.engines.processes import run_processes
from tests.train.small import TERMS, model, planner
from understudy.train.adapter import ModelAdapter
from understudy.train.attention.cpu import CpuBackend
from understudy.train.engines.local import LocalEngine
from understudy.train.engines.sharded import ShardedEngine
from understudy.train.lockstep import Lockstep
from understudy.train.runner import RowRunner, TreeRunner
from understudy.train.self_check import self_check
from understudy.train.sharding import shard

COEFFICIENTS = dict(zip(TERMS, (1.0, 0.5), strict=True))
CPU = torch.device("cpu")
NUM_STEPS, NUM_BEFORE = 4, 2


@dataclass(frozen=True)
class Case:
    """What is trained. With 7 examples in steps of 3 the third has one, so one of two ranks has nothing to do."""

    architecture: str = "qwen3"
    lora: bool = False
    tied: bool = True
    gradient_checkpointing: bool = False
    rows: bool = False
    autocast_dtype: torch.dtype | None = None
    num_examples: int = 7
    init_scale: float = 1024.0
    num_copies: int = 1
    num_experts: int = 4
    tp_size: int = 1
    num_kv_heads: int = 2
    biases: bool = False
    dropout: float = 0.0
    self_check: bool = True


CASES = {
    "all weights": Case(),
    "one example": Case(num_examples=1),
    "untied": Case(tied=False),
    "gradient checkpointing": Case(gradient_checkpointing=True),
    "rows": Case(rows=True, tied=False),
    "copies": Case(num_copies=2),
    "lora": Case(lora=True),
    "experts": Case("qwen3_moe", tied=False),
    "fewer experts than ranks": Case("qwen3_moe", num_experts=1),
    "experts, lora": Case("qwen3_moe", lora=True, gradient_checkpointing=True),
    "bf16": Case(autocast_dtype=torch.bfloat16, gradient_checkpointing=True),
    "experts, bf16": Case("qwen3_moe", autocast_dtype=torch.bfloat16),
    "fp16": Case(autocast_dtype=torch.float16),
}
EXACT = [name for name, case in CASES.items() if case.autocast_dtype is None]
HALF = [name for name in CASES if name not in EXACT]


def network(case: Case, seed: int = 0) -> nn.Module:
    experts = {"num_experts": case.num_experts, "num_experts_per_tok": min(2, case.num_experts)}
    sizes: dict[str, Any] = experts if case.architecture == "qwen3_moe" else {"num_kv_heads": case.num_kv_heads}
    if case.biases:
        sizes |= {"attention_bias": True, "mlp_bias": True}
    made = model(case.architecture, num_layers=2, tie_word_embeddings=case.tied, seed=seed, **sizes)
    if case.lora:
        import peft

        torch.manual_seed(seed)
        lora = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, lora_dropout=case.dropout)
        made = peft.get_peft_model(made, lora)
    return made.train()


def settings(adapter: ModelAdapter, case: Case) -> tuple[Any, dict[str, Any]]:
    """Return runner and further arguments of an engine."""
    if case.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    tree_runner = TreeRunner(adapter, CpuBackend(), autocast_dtype=case.autocast_dtype)
    runner: Any = RowRunner(adapter) if case.rows else tree_runner
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    return runner, {
        "coefficients": COEFFICIENTS,
        "source_names": ("first", "second") if case.num_examples > 1 else ("first",),
        "optimizer": torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1, fused=True),
        "max_grad_norm": 0.5,
        "scaler": torch.amp.GradScaler("cpu", case.init_scale) if case.autocast_dtype == torch.float16 else None,
    }


def local_engine(case: Case, weights: dict[str, Any] | None = None) -> LocalEngine:
    made = network(case)
    if weights is not None:
        made.load_state_dict(weights, strict=not case.lora)
    adapter = ModelAdapter(made)
    runner, arguments = settings(adapter, case)
    return LocalEngine(adapter, runner, **arguments)


def sharded_engine(case: Case, weights: dict[str, Any] | None = None) -> ShardedEngine:
    made = network(case)
    if weights is not None:
        made.load_state_dict(weights, strict=not case.lora)
    root = shard(made, CPU, case.autocast_dtype, dist.get_world_size() // case.tp_size // case.num_copies, case.tp_size)
    lockstep = Lockstep(root, CPU, case.autocast_dtype)
    adapter = ModelAdapter(made, lockstep)
    runner, arguments = settings(adapter, case)
    return ShardedEngine(adapter, runner, tp_size=case.tp_size, **arguments)


def plans(case: Case, world_size: int) -> Any:
    return planner(
        case.num_examples, batch_size=3, world_size=world_size, layout="rows" if case.rows else "depth_first"
    )


def run(engine: Any, steps: Any, which: range) -> list[tuple[float, float, int]]:
    figures = []
    for step in which:
        step_plan = steps.plan(step, engine.rank)
        stats = engine.forward_backward(step_plan, engine.global_weight_sums(step_plan))
        engine.optimizer_step(stats)
        figures.append((stats.loss, stats.grad_norm, stats.num_row_tokens))
    return figures


def run_local(case: Case) -> dict[str, Any]:
    engine, steps = local_engine(case), plans(case, 1)
    start = run(engine, steps, range(NUM_BEFORE))
    state, before = copy.deepcopy((engine.state(), engine.adapter.model.state_dict()))
    evaluated = engine.evaluate([steps.plan(0), steps.plan(2)]).loss
    rest = run(engine, steps, range(NUM_BEFORE, NUM_STEPS))
    found = {"start": start, "state": state, "evaluated": evaluated, "rest": rest, "weights": trained(engine)}
    return found | {"weights before": before}


def trained(engine: LocalEngine) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in engine.adapter.model.named_parameters() if p.requires_grad}


def _work(_rank: int, local: dict[str, Any]) -> dict[str, Any]:
    found = {name: run_sharded(case, local[name]) for name, case in CASES.items()}
    return found | {"overflow": _overflow()}


def run_sharded(case: Case, local: dict[str, Any]) -> dict[str, Any]:
    """Train in shards; and go on in shards with what the local engine began."""
    engine = sharded_engine(case)
    steps = plans(case, engine.world_size)
    found: dict[str, Any] = {"start": run(engine, steps, range(NUM_BEFORE))}
    found["state"] = copy.deepcopy(engine.state())
    found["weights before"] = {name: tensor.clone() for name, tensor in engine._saved_weights().items()}
    found["evaluated"] = engine.evaluate([steps.plan(0, engine.rank), steps.plan(2, engine.rank)]).loss
    found["rest"] = run(engine, steps, range(NUM_BEFORE, NUM_STEPS))
    found["weights"] = engine._saved_weights()
    parameters = list(engine.adapter.model.parameters())
    found["share"] = sum(p.to_local().nbytes for p in parameters) / sum(p.nbytes for p in parameters)
    moments = [value for of_one in engine.optimizer.state.values() for value in of_one.values() if value.ndim]
    found["share of moments"] = sum(m.to_local().nbytes for m in moments) / sum(m.nbytes for m in moments)
    if case.self_check and not case.rows and case.autocast_dtype is None:
        found["check"] = self_check(engine.adapter, CpuBackend(), steps.plan(0, 0).micro_batches[0].forest)
    other = sharded_engine(case, local["weights before"])
    other.load_state(local["state"])
    found["resumed"] = run(other, steps, range(NUM_BEFORE, NUM_STEPS))
    return found


def _overflow() -> dict[str, Any]:
    engine = sharded_engine(Case(autocast_dtype=torch.float16, init_scale=2.0**40))
    before = [p.to_local().clone() for p in engine.adapter.model.parameters()]
    step_plan = plans(Case(), 2).plan(0, engine.rank)
    stats = engine.forward_backward(step_plan, engine.global_weight_sums(step_plan))
    engine.optimizer_step(stats)
    after = [p.to_local() for p in engine.adapter.model.parameters()]
    return {"skipped": stats.skipped, "same": all(map(torch.equal, before, after)), "scale": engine._scaler.get_scale()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the local engine did with every case, and what each of two ranks did."""
    local = {name: run_local(case) for name, case in CASES.items()}
    return local, run_processes(_work, 2, tmp_path_factory.mktemp("sharded"), local)


def assert_same_figures(found: list[Any], expected: list[Any], rel: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, rel=rel)


def assert_computes_the_same(local: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    """Hold what each process found in a case against what the local engine did."""
    for found in ranks:
        assert_same_figures(found["start"] + found["rest"], local["start"] + local["rest"], 2e-5)
        assert found["evaluated"] == pytest.approx(local["evaluated"], rel=2e-5)
    for parameter, expected in local["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][parameter], expected, rtol=1e-4, atol=2e-4)
    assert not any(found["weights"] for found in ranks[1:])  # gathered for the main process alone


def assert_goes_on_with_what_the_other_began(case: Case, local: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert_same_figures(found["resumed"], local["rest"], 2e-5)
    engine = local_engine(case, ranks[0]["weights before"])
    engine.load_state(ranks[0]["state"])
    assert_same_figures(run(engine, plans(case, 1), range(NUM_BEFORE, NUM_STEPS)), local["rest"], 2e-5)


@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_compute_what_one_process_does(runs, name: str) -> None:
    local, ranks = runs
    assert_computes_the_same(local[name], [rank[name] for rank in ranks])


@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_as_near_as_on_one_process(runs, name: str) -> None:
    local, ranks = runs
    for found in (rank[name] for rank in ranks):
        # Experts are chosen by rounded numbers, so theirs are far from each other.
        rel = 0.1 if CASES[name].architecture == "qwen3_moe" else 0.02
        assert_same_figures(found["start"] + found["rest"], local[name]["start"] + local[name]["rest"], rel)
        assert found["start"][0][0] == pytest.approx(local[name]["start"][0][0], rel=3e-3)
    assert {tensor.dtype for tensor in ranks[0][name]["weights"].values()} == {torch.float32}


@pytest.mark.parametrize("name", EXACT)
def test_either_engine_goes_on_with_what_the_other_began(runs, name: str) -> None:
    local, ranks = runs
    assert_goes_on_with_what_the_other_began(CASES[name], local[name], [rank[name] for rank in ranks])


@pytest.mark.parametrize("name", CASES)
def test_each_rank_holds_its_share_of_weights_and_moments(runs, name: str) -> None:
    share = CASES[name].num_copies / 2
    for rank in runs[1]:
        assert rank[name]["share"] == pytest.approx(share, abs=0.05)
        assert rank[name]["share of moments"] == pytest.approx(share, abs=0.05)


def test_trees_are_held_against_rows_in_shards_too(runs) -> None:
    for rank in runs[1]:
        assert rank["experts"]["check"].gradient_difference < 1e-5
        assert rank["experts"]["check"].num_rows > 1


def test_an_fp16_overflow_on_any_rank_skips_the_step_on_all(runs) -> None:
    for rank in runs[1]:
        assert rank["overflow"] == {"skipped": True, "same": True, "scale": 2.0**39}
