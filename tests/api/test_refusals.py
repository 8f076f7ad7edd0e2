"""What cannot work is refused with its reason and its mend, and loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import understudy
from tests.training import WEATHER, config, metrics, train
from understudy.errors import ConfigError, MissingDependency, RenderError, TrainError, UnderstudyError
from understudy.models.tiny import train_tokenizer
from understudy.train.engines.local import LocalEngine


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"train": {"eval_steps": 2}}, ConfigError, "train.eval_steps needs data to validate on"),
        ({"train": {"report_to": "wandbb"}}, ConfigError, "unknown tracker 'wandbb'. Did you mean 'wandb'?"),
        ({"data": {"path": "nowhere.jsonl"}}, UnderstudyError, "nowhere.jsonl: no such file"),
        ({"data": {"path": None}}, ConfigError, "there is no data: set data.path"),
        ({"model": {"path": "/nowhere"}}, UnderstudyError, "/nowhere"),
        ({"objective": {"name": "cloning"}}, ConfigError, "unknown objective 'cloning'"),
        ({"objective": {"weight_by": "score"}}, UnderstudyError, "weight_by is 'score'"),
        ({"objective": {"bc_weight": 0}}, ConfigError, "there is nothing to train"),
        ({"rendering": {"chat_template": "nowhere.jinja"}}, RenderError, "nowhere.jinja"),
        ({"rendering": {"stop_tokens": ["<|im_ends|>"]}}, RenderError, "Did you mean '<|im_end|>'?"),
        ({"data": {"max_length": 20}}, UnderstudyError, "are more than max_length 20"),
        (
            {"train": {"layout": "rows", "max_tokens_per_batch": 50}},
            ConfigError,
            "does not fit train.max_tokens_per_batch 50",
        ),
        (
            {"lora": {"lora_target_modules": ["q_project"]}},
            ConfigError,
            "is called 'q_project'. Did you mean 'q_proj'?",
        ),
        ({"lora": {"lora_target_modules": "q_(proj"}}, ConfigError, "'q_(proj' is no regular expression: missing )"),
        ({"lora": {"lora_target_modules": "nothing.*"}}, ConfigError, "no layer matches the expression"),
        ({"model": {"load_in_4bit": True}}, ConfigError, "model.load_in_4bit needs lora"),
        ({"model": {"load_in_4bit": True}, "lora": {}, "train": {"device": "cpu"}}, ConfigError, "in_4bit needs a GPU"),
        ({"train": {"fsdp": True, "optim": "muon"}}, ConfigError, "which fsdp cuts; set optim: adamw_torch_fused"),
        (
            {"train": {"fsdp": True, "optim": "adamw_8bit"}},
            ConfigError,
            "which fsdp cuts; set optim: adamw_torch_fused",
        ),
        ({"train": {"fsdp": True, "torch_compile": True}}, ConfigError, "fsdp does not go with torch_compile"),
        ({"train": {"fsdp": True, "activation_offloading": True}}, ConfigError, "set gradient_checkpointing: true"),
        ({"train": {"fsdp_size": 2}}, ConfigError, "fsdp_size means nothing without fsdp"),
        (
            {"train": {"fsdp": True}, "model": {"load_in_4bit": True}, "lora": {}},
            ConfigError,
            "cannot cut weights in 4",
        ),
        (
            {"train": {"fsdp": True}, "evaluation": {"environment": {"name": "math"}}},
            ConfigError,
            "understudy evaluate",
        ),
        ({"train": {"tp_size": 2, "optim": "muon"}}, ConfigError, "which tp_size cuts; set optim: adamw_torch_fused"),
        ({"train": {"tp_size": 2, "torch_compile": True}}, ConfigError, "tp_size does not go with torch_compile"),
        ({"train": {"tp_size": 2}, "lora": {"use_dora": True}}, ConfigError, "in place of train.tp_size"),
        ({"train": {"tp_size": 2}}, ConfigError, "groups of 2 cannot be made of 1 process(es); start a multiple of 2"),
        ({"model": {"trust_remote_code": "maybe"}}, ConfigError, "model.trust_remote_code"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason_and_leaves_no_checkpoint(
    base, tmp_path, changes, error, said: str
) -> None:
    with pytest.raises(error, match=None) as caught:
        train(base, tmp_path / "run", **changes)
    assert said in str(caught.value)
    assert not list(tmp_path.rglob("checkpoint-*"))
    assert not (tmp_path / "run" / "final").exists()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ACCELERATE_USE_FSDP", "true", "told to use FSDP.* set train.fsdp: true"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "told to use DeepSpeed"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "set train.bf16: true, or launch with --mixed_precision no"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "told to compute in fp8"),
    ],
)
def test_what_accelerate_was_asked_for_and_training_would_not_do_is_refused(
    base, tmp_path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said):
        train(base, tmp_path / "run")


def test_what_accelerate_was_asked_for_may_agree_with_the_config(
    base, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert train(base, tmp_path / "run", train={"bf16": True, "max_steps": 1}).step == 1


def test_an_optimiser_that_is_not_installed_is_named(base, tmp_path) -> None:
    pytest.importorskip("torch")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependency, match="adamw_8bit needs the package 'bitsandbytes'"):
            train(base, tmp_path / "run", train={"optim": "adamw_8bit"})
    else:
        assert train(base, tmp_path / "run", train={"optim": "adamw_8bit"}).step == 6


def test_a_model_without_trees_is_not_told_that_they_could_cut_a_row(base, tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.attention_dropout = 0.1
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"does not fit train.max_tokens_per_batch 50.* takes whole rows only$"):
        train(tmp_path / "base", tmp_path / "run", train={"max_tokens_per_batch": 50})


def test_a_tokenizer_that_writes_ids_beyond_the_models_embeddings_is_refused_with_the_row(base, tmp_path) -> None:
    train_tokenizer([WEATHER.read_text()], vocab_size=900).save_pretrained(tmp_path / "tokenizer")
    settings = config(base, tmp_path / "run", model={"tokenizer": str(tmp_path / "tokenizer")})
    for start in (understudy.train, understudy.dry_run):
        with pytest.raises(ConfigError, match=r"weather.jsonl:\d+: token id \d+ is beyond the model's 400 embeddings"):
            start(settings)


def test_trained_weights_in_float16_are_refused_where_the_loss_is_scaled(base, tmp_path) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(half)
    AutoTokenizer.from_pretrained(base).save_pretrained(half)
    whole = {"lora_r": 2, "modules_to_save": ["embed_tokens"]}
    for changes in ({"model": {"dtype": "float16"}}, {"lora": whole}):
        with pytest.raises(ConfigError, match=r"embed_tokens.*is in float16; set model.dtype: float32"):
            train(half, tmp_path / "run", train={"fp16": True, "max_steps": 1}, **changes)
    assert train(half, tmp_path / "run", train={"fp16": True, "max_steps": 1}).step == 1


def test_a_model_without_a_chat_template_is_refused(base, tmp_path) -> None:
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(bare)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    with pytest.raises(RenderError, match="has no chat template"):
        train(bare, tmp_path / "run")


def test_a_template_that_refuses_is_named_with_the_row(base, tmp_path) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RenderError, match=r"weather.jsonl:1: turn 0: TEMPLATE_RAISED.*roles must alternate"):
        train(base, tmp_path / "run", rendering={"chat_template": str(template)})


def test_weights_other_than_safetensors_are_refused(base, tmp_path) -> None:
    folder = tmp_path / "pickled"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no safetensors"):
        train(folder, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_before_the_step_names_the_rows_and_loses_nothing(
    base, tmp_path, monkeypatch
) -> None:
    stepped = LocalEngine.optimizer_step

    def spoil(self: LocalEngine, stats: Any) -> None:
        stepped(self, stats)
        if len(metrics_so_far()) == 2:  # two steps are reported, the third has just been taken
            with torch.no_grad():
                next(self.adapter.model.parameters())[:] = float("nan")

    def metrics_so_far() -> list[float]:
        return metrics(tmp_path / "run")

    monkeypatch.setattr(LocalEngine, "optimizer_step", spoil)
    with pytest.raises(TrainError, match=r"step 4: the loss is nan, so the step was not taken.*weather.jsonl:\d"):
        train(base, tmp_path / "run", train={"save_steps": 100})
    assert len(metrics(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["status"] == "failed"
