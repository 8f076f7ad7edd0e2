"""Running chunks depth first, and rows one by one where trees cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from understudy.batching import Planner, Sampler, Source, StepPlan, separate_rows
from understudy.train.adapter import ModelAdapter
from understudy.train.attention.cpu import CpuBackend
from understudy.train.engines.local import LocalEngine
from understudy.train.runner import RowRunner, Runner, TreeRunner

from .naive import relative_difference, take_gradients
from .small import TERMS, VOCAB, model, random_example
from .test_adapter import make

COEFFICIENTS = dict.fromkeys(TERMS, 1.0)


def one_step(layout: str, max_tokens: int = 25) -> StepPlan:
    examples = [random_example(seed) for seed in range(4)]
    sampler = Sampler([4], batch_size=4, seed=0)
    return Planner([Source("d", examples)], sampler, layout=layout, max_tokens_per_batch=max_tokens).plan(0)


def run(adapter: ModelAdapter, runner: Runner, plan: StepPlan) -> tuple[float, dict[str, Tensor]]:
    engine = LocalEngine(adapter, runner, coefficients=COEFFICIENTS)
    loss = engine.forward_backward(plan, engine.global_weight_sums(plan)).loss
    return loss, take_gradients(adapter.model)


def plain(network: nn.Module) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of each row by itself, by the model's own logits and torch's loss."""
    rows = [row for seed in range(4) for row in separate_rows(random_example(seed))]
    totals = sum(np.abs(row.weights).sum(1) for row in rows)
    loss = 0.0
    for row in rows:
        logits = network(input_ids=torch.from_numpy(row.ids).long()[None], use_cache=False).logits[0]
        nll = nn.functional.cross_entropy(
            logits[torch.from_numpy(row.position).long()], torch.from_numpy(row.label).long(), reduction="none"
        )
        part = (nll * torch.from_numpy((row.weights / totals[:, None]).sum(0))).sum()
        part.backward()
        loss += part.item()
    return loss, take_gradients(network)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("qwen3_next", {"num_experts": 4, "num_experts_per_tok": 2}),
        ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ],
)
def test_architectures_without_trees_train_row_by_row(architecture: str, settings: dict) -> None:
    network = make(architecture, **settings).train()
    adapter = ModelAdapter(network)
    assert adapter.tree_obstacle(CpuBackend())
    expected, reference = plain(network)
    loss, gradients = run(adapter, RowRunner(adapter), one_step("rows", 500))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert relative_difference(gradients, reference) < 1e-5


@pytest.mark.parametrize("architecture", ["deepseek_v3", "phi", "qwen2", "granite"])
def test_other_architectures_take_trees_without_a_line_written_for_them(architecture: str) -> None:
    """Latent attention with narrower values, a biased head, biased projections, scaled logits."""
    if architecture == "deepseek_v3":
        sizes = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
        config = AutoConfig.for_model(
            architecture, vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, intermediate_size=48, first_k_dense_replace=2, pad_token_id=None, **sizes,
        )  # fmt: skip
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(config).train()
    else:
        network = make(architecture).train()
    adapter = ModelAdapter(network)
    assert adapter.tree_obstacle(CpuBackend()) is None
    expected, reference = plain(network)
    loss, gradients = run(adapter, TreeRunner(adapter, CpuBackend()), one_step("depth_first"))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert relative_difference(gradients, reference) < 1e-5


def test_a_stem_that_runs_forward_twice_drops_the_same_units_out() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(0)
    adapter = ModelAdapter(peft.get_peft_model(model(), config).train())
    results = []
    for max_held_stems in (100, 0):
        torch.manual_seed(5)
        results.append(
            run(adapter, TreeRunner(adapter, CpuBackend(), max_held_stems=max_held_stems), one_step("depth_first"))
        )
        state = torch.get_rng_state()
    assert results[0][0] == results[1][0]
    assert relative_difference(results[1][1], results[0][1]) < 1e-6
    torch.manual_seed(5)
    run(adapter, TreeRunner(adapter, CpuBackend()), one_step("depth_first"))
    assert torch.equal(torch.get_rng_state(), state), "running twice must not use up random numbers"


def test_the_same_step_gives_the_same_bits() -> None:
    network = model()
    adapter = ModelAdapter(network)
    first, second = (run(adapter, TreeRunner(adapter, CpuBackend()), one_step("depth_first")) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
