"""The recipes on real data: losses fall on what is held out, and what comes out loads and writes elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import understudy
from tests.training import metrics
from understudy.models.export import export_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def writes(folder: Path) -> bool:
    """Return whether plain transformers can go on from a prompt with the model in a folder."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "I want to change my flight."}], add_generation_prompt=True, return_tensors="pt"
    )
    return model.generate(**prompt, max_new_tokens=4).shape[1] > prompt["input_ids"].shape[1]


def test_the_tau_bench_recipe_learns_from_real_episodes(test_data: Path, tmp_path: Path) -> None:
    data = test_data / "corpus" / "tau_bench" / "gpt4o_airline_tasks00-39.jsonl.zst"
    result = understudy.train(
        ROOT / "recipes" / "tau_bench.yaml",
        overrides=[
            f"data.path={data}",
            f"output_dir={tmp_path / 'run'}",
            # A tenth of the recipe's work, for the tests' sake.
            "model={tiny: qwen3, hidden_size: 32, num_layers: 1, vocab_size: 1024}",
            "data.max_samples=40",
            "train.per_device_train_batch_size=2",
            "train.max_steps=20",
            "train.learning_rate=1e-2",
        ],
    )
    losses = metrics(tmp_path / "run", "eval_loss")
    assert losses[-1] < losses[0] - 1.0
    assert result.final is not None
    assert writes(result.final)
    sources = json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]["sources"]
    assert (sources[0]["num_examples"], sources[0]["num_held_out"], sources[0]["num_refused"]) == (36, 4, 0)


def test_the_mix_of_three_real_sources_learns_from_each(test_data: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    corpus = test_data / "corpus"
    paths = {
        "tau_bench": corpus / "tau_bench" / "gpt4o_airline_tasks00-39.jsonl.zst",
        "babyai": corpus / "agentgym" / "babyai_train.parquet",
        "mint": corpus / "mint" / "mint_gpt4_feedback.jsonl.zst",
    }
    result = understudy.train(
        ROOT / "recipes" / "mix.yaml",
        overrides=[
            *(f"data.sources.{name}.path={path}" for name, path in paths.items()),
            f"output_dir={tmp_path / 'run'}",
            "model={tiny: llama, hidden_size: 32, num_layers: 1, vocab_size: 1024}",
            "lora.lora_r=8",
            "lora.modules_to_save=[embed_tokens]",
            "data.max_samples=20",
            "train.per_device_train_batch_size=6",
            "train.max_steps=15",
            "train.learning_rate=2e-2",
        ],
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, last = (row["eval_sources"] for row in (rows[0], rows[-1]))
    for name in paths:
        before, after = (side[name]["behavioral_cloning"]["loss"] for side in (first, last))
        assert after < before - 0.5, name
    assert result.final is not None
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
    assert PeftModel.from_pretrained(base, result.final).peft_config
    export_model(tmp_path / "run", tmp_path / "merged")
    assert writes(tmp_path / "merged")
