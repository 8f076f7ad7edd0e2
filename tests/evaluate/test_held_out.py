"""The held-out loss is the one that training has, and the one that transformers has."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.evaluate.playing import run
from tests.training import WEATHER, metrics, train
from understudy.errors import ConfigError, RenderError
from understudy.evaluate import EvaluateResult, HeldOutLoss
from understudy.formats import write_episodes
from understudy.models.load import load_hf_tokenizer
from understudy.models.tiny import save_tiny
from understudy.types import Episode


def measured(folder: Path, model: Path, data: Path = WEATHER, **keys: Any) -> HeldOutLoss:
    loss = {"model": str(model), "data_path": str(data), **keys}
    result: EvaluateResult = run(folder, environment=None, policy=None, num_tasks=None, loss=loss)
    (found,) = result.losses
    assert result.metrics is None
    return found


@pytest.mark.parametrize("lora", [None, {"lora_r": 4}], ids=["all weights", "adapter"])
@pytest.mark.parametrize(
    "objective", [{}, {"name": "combined", "world_model_weight": 0.3}], ids=["cloning", "combined"]
)
def test_it_is_the_validation_loss_of_training(base: Path, tmp_path: Path, lora: Any, objective: Any) -> None:
    sections = {"lora": lora, "objective": objective, "train": {"max_steps": 3, "learning_rate": 1e-2}}
    train(base, tmp_path / "run", data={"validation_path": str(WEATHER)}, **sections)
    found = measured(tmp_path / "out", tmp_path / "run", objective=objective)
    assert found.loss == pytest.approx(metrics(tmp_path / "run", "eval_loss")[-1], rel=1e-6)
    assert found.terms["behavioral_cloning"].perplexity == math.exp(found.terms["behavioral_cloning"].loss)
    assert found.num_episodes == 6


def test_it_is_the_loss_of_transformers(base: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Will it rain?"}, {"role": "assistant", "content": "No, it is sunny."}]
    write_episodes(tmp_path / "rows.jsonl", [Episode.from_messages(messages)], "native")
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    target = tokenizer.apply_chat_template(messages, tokenize=False).removeprefix(prompt).rstrip()
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, target))
    labels = torch.tensor([[-100] * len(first) + second])
    expected = model(input_ids=torch.tensor([first + second]), labels=labels).loss.item()
    found = measured(tmp_path / "out", base, tmp_path / "rows.jsonl")
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert (found.num_tokens, found.num_turns) == (len(second), 1)


def test_how_it_is_computed_changes_nothing_and_what_is_read_can_be_limited(base: Path, tmp_path: Path) -> None:
    whole = measured(tmp_path / "a", base)
    assert measured(tmp_path / "b", base, max_tokens_per_batch=64).loss == pytest.approx(whole.loss, rel=1e-6)
    part = measured(tmp_path / "c", base, max_samples=2)
    assert (part.num_episodes, part.data_fingerprint == whole.data_fingerprint) == (2, False)
    cut = measured(tmp_path / "d", base, max_length=470, max_length_policy="drop")
    assert (cut.num_turns, cut.num_left_out) == (15, 11)


def test_a_model_that_takes_no_trees_is_measured_on_rows(tmp_path: Path, base: Path) -> None:
    save_tiny(tmp_path / "dropout", "qwen3", load_hf_tokenizer(base), seed=0, hidden_size=32, num_layers=1)
    file = tmp_path / "dropout" / "config.json"
    config = json.loads(file.read_text())
    expected = measured(tmp_path / "a", tmp_path / "dropout")
    file.write_text(json.dumps(config | {"attention_dropout": 0.1}))
    assert measured(tmp_path / "b", tmp_path / "dropout").loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_models_of_policy_and_baseline_are_measured_on_the_same_rows(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "run", train={"max_steps": 3, "learning_rate": 1e-2})

    def local(model: Path) -> dict[str, Any]:
        return {"name": "local", "arguments": {"model": str(model), "max_new_tokens": 3}}

    found = run(
        tmp_path / "out", policy=local(tmp_path / "run"), baseline=local(base), num_tasks=2, max_turns=1,
        loss={"data_path": str(WEATHER)},
    )  # fmt: skip
    after, before = found.losses
    assert (after.model, before.model) == (str(tmp_path / "run"), str(base))
    assert after.loss < before.loss
    assert after.data_fingerprint == before.data_fingerprint


def test_rows_that_cannot_be_measured_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model"):
        measured(tmp_path / "a", tmp_path)
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: nothing\n{% endfor %}")
    with pytest.raises(RenderError, match=r"weather\.jsonl"):
        measured(tmp_path / "b", base, rendering={"chat_template": str(template)})
