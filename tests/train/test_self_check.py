"""The start-up check passes where trees are right and refuses where anything is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from understudy import registry
from understudy.batching import Forest, make_example, merge, separate_rows
from understudy.errors import TrainError
from understudy.train import adapter as adapter_module
from understudy.train.adapter import ModelAdapter
from understudy.train.attention import AttentionLayout
from understudy.train.attention.cpu import CpuBackend
from understudy.train.self_check import sample_of, self_check

from .small import model, plan
from .tau_bench import rendered, tiny_renderer


def real_forest(data: Path) -> Forest:
    objective = registry.load("objectives", "combined")()
    examples = [
        make_example(item.tree, objective.weigh(item.tree, item.trajectory)) for item in rendered(data, "episode")
    ]
    return merge([example for example in examples if example is not None])


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_moe", "mistral", "gemma3_text", "gpt_oss"])
def test_it_passes_on_real_rows_and_leaves_no_trace(architecture: str, test_data: Path) -> None:
    network = model(architecture)
    network.resize_token_embeddings(tiny_renderer(test_data).tokenizer.backend.get_vocab_size())
    result = self_check(ModelAdapter(network), CpuBackend(), real_forest(test_data))
    assert result.num_rows > 1
    assert 0 < result.gradient_difference <= result.tolerance
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


def test_it_passes_in_bfloat16() -> None:
    network = model(dtype=torch.bfloat16)
    assert self_check(ModelAdapter(network), CpuBackend(), plan().micro_batches[0].forest).tolerance < 0.2


def with_lora(dtype: torch.dtype) -> ModelAdapter:
    """A model whose adapters are in float32, as PEFT holds them, whatever the base is in."""
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
    return ModelAdapter(peft.get_peft_model(model(dtype=dtype), settings).train())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_passes_with_lora(dtype: torch.dtype) -> None:
    self_check(with_lora(dtype), CpuBackend(), plan().micro_batches[0].forest)


class _SeesEverythingBefore(CpuBackend):
    """A wrong backend: each query sees all that stands before it, other branches too."""

    def attend(self, query, key, value, layout: AttentionLayout, **settings):
        flat = AttentionLayout(
            num_past=layout.num_past,
            depth=layout.depth,
            end=np.full_like(layout.end, layout.num_queries),
            past=np.full_like(layout.past, layout.num_past),
            parent=np.arange(-1, layout.num_queries - 1, dtype=np.int32),
        )
        return super().attend(query, key, value, flat, **settings)


class _ForgetsThePast(CpuBackend):
    """A wrong backend: chunks do not see the keys and values above them."""

    def attend(self, query, key, value, layout: AttentionLayout, **settings):
        own = AttentionLayout(
            num_past=0, depth=layout.depth, end=layout.end, past=np.zeros_like(layout.past), parent=layout.parent
        )
        return super().attend(query, key[:, :, layout.num_past :], value[:, :, layout.num_past :], own, **settings)


class _BreaksGradients(CpuBackend):
    """A wrong backend: right values, no gradient through the keys."""

    def attend(self, query, key, value, layout: AttentionLayout, **settings):
        return super().attend(query, key.detach(), value, layout, **settings)


@pytest.mark.parametrize("backend", [_SeesEverythingBefore, _ForgetsThePast, _BreaksGradients])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_refuses_a_backend_that_is_wrong(backend: type[CpuBackend], dtype: torch.dtype) -> None:
    with pytest.raises(TrainError, match="do not give this model the results of separate rows"):
        self_check(ModelAdapter(model(dtype=dtype)), backend(), plan().micro_batches[0].forest)
    with pytest.raises(TrainError, match="do not give this model the results of separate rows"):
        self_check(with_lora(dtype), backend(), plan().micro_batches[0].forest)


def test_it_refuses_a_model_that_does_not_name_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sliding window that reaches the model's own mask but not our attention must not go unseen."""
    attention = adapter_module._tree_attention

    def without_window(*arguments, sliding_window=None, **rest):
        return attention(*arguments, **rest)

    adapter_module.AttentionInterface.register(adapter_module.TREE_ATTENTION, without_window)
    try:
        with pytest.raises(TrainError, match="do not give"):
            self_check(ModelAdapter(model("mistral", sliding_window=8)), CpuBackend(), plan().micro_batches[0].forest)
    finally:
        adapter_module.AttentionInterface.register(adapter_module.TREE_ATTENTION, attention)


def test_the_sample_is_small_keeps_branches_and_reaches_beyond_windows(test_data: Path) -> None:
    forest = real_forest(test_data)
    sample = sample_of(forest, [])
    assert sample.num_tokens < forest.num_tokens / 2
    assert len(separate_rows(sample)) > 1
    assert len(sample.label) > 0
    assert max(len(row.ids) for row in separate_rows(sample_of(forest, [150]))) > 150
