"""What the adapter knows about architectures: which take trees, how they make logits, what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from understudy.errors import TrainError
from understudy.train.adapter import ModelAdapter
from understudy.train.attention.cpu import CpuBackend
from understudy.train.attention.dense import DenseBackend

from .small import VOCAB, model

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def make(architecture: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **{**SIZES, **settings})).eval()


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "mistral", "gemma3_text", "gpt_oss", "qwen3_moe"])
def test_common_architectures_take_trees(architecture: str) -> None:
    assert ModelAdapter(model(architecture)).tree_obstacle(CpuBackend()) is None


@pytest.mark.parametrize(
    ("architecture", "settings", "reason"),
    [
        ("qwen3_next", {"num_experts": 4, "num_experts_per_tok": 2}, "linear_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout"),
        ("gemma2", {"attn_logit_softcapping": 50.0}, "caps attention logits"),
    ],
)
def test_what_cannot_take_a_tree_says_why(architecture: str, settings: dict, reason: str) -> None:
    obstacle = ModelAdapter(make(architecture, **settings)).tree_obstacle(CpuBackend())
    assert obstacle is not None
    assert reason in obstacle


def test_a_capped_model_takes_trees_where_the_backend_can_cap() -> None:
    assert ModelAdapter(make("gemma2", attn_logit_softcapping=50.0)).tree_obstacle(DenseBackend()) is None


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 0.05}),
        ("phi", {}),  # its head has a bias
    ],
)
def test_logits_are_scaled_and_capped_as_the_model_does(architecture: str, settings: dict) -> None:
    network = make(architecture, **settings)
    adapter = ModelAdapter(network)
    ids = torch.arange(12) % VOCAB
    with torch.no_grad():
        torch.testing.assert_close(adapter.head.logits(adapter.row_hidden(ids)), adapter.row_logits(ids))


def test_logits_of_an_unknown_making_are_refused() -> None:
    network = make("llama")
    network.lm_head.register_forward_hook(lambda _module, _inputs, out: out * 3)
    with pytest.raises(TrainError, match="makes its logits in a way"):
        ModelAdapter(network)


def test_attention_is_the_models_own_again_after_the_block() -> None:
    adapter = ModelAdapter(model())
    ids = torch.arange(9)
    with torch.no_grad():
        before = adapter.row_logits(ids)
        with adapter.attention():
            assert adapter.backbone.config._attn_implementation == "understudy_tree"
        torch.testing.assert_close(adapter.row_logits(ids), before)


def test_a_plain_forward_within_the_block_is_refused_not_wrong() -> None:
    adapter = ModelAdapter(model())
    with adapter.attention(), pytest.raises(TrainError, match="cannot take a tree"):
        adapter.row_hidden(torch.arange(5))


def test_adapters_on_the_head_are_refused_and_whole_heads_train() -> None:
    peft = pytest.importorskip("peft")
    settings = {"tie_word_embeddings": False}
    with pytest.raises(TrainError, match="modules_to_save"):
        ModelAdapter(peft.get_peft_model(model(**settings), peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"])))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapter = ModelAdapter(peft.get_peft_model(model(**settings), config))
    assert adapter.head.weight.requires_grad


def test_something_else_than_a_transformers_model_is_refused() -> None:
    with pytest.raises(TrainError, match="Linear is not a transformers model"):
        ModelAdapter(nn.Linear(2, 2))
