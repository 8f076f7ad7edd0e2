"""Whole runs in this process: a tiny model on the example conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.training import WEATHER, metrics, same, train, weights
from understudy.config import load_config
from understudy.train.config import TrainConfig

# What a run leaves.


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went to its end."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    train(base, output, data={"validation_split": 0.3}, train={"max_steps": 30, "save_steps": 10, "eval_steps": 10})
    return output


def test_training_lowers_the_loss_on_what_was_held_out(finished) -> None:
    losses = metrics(finished, "eval_loss")
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.5
    assert metrics(finished)[-1] < metrics(finished)[0] - 0.5


def test_the_final_model_loads_in_plain_transformers_and_answers(finished) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished / "final")
    tokenizer = AutoTokenizer.from_pretrained(finished / "final")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Will it rain?"}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert out.shape[1] > prompt["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_final_model_is_the_last_checkpoint_without_its_training_state(finished) -> None:
    assert same(weights(finished / "final"), weights(finished / "checkpoint-30"))
    assert not list((finished / "final").glob("*.pt"))
    assert not list(finished.rglob("*.bin"))


def test_a_run_can_be_read_without_understudy(finished) -> None:
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert provenance["data"]["sources"][0]["num_episodes"] == 6
    assert len(provenance["data"]["data_fingerprint"]) == len(provenance["data"]["rendering_fingerprint"]) == 16
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    step = next(row for row in rows if row["step"] == 7)
    assert step["terms"]["behavioral_cloning"]["loss"] == pytest.approx(step["loss"])
    assert step["sources"]["data"]["behavioral_cloning"]["weight"] > 0
    assert step["num_tokens"] <= step["num_row_tokens"]
    assert step["learning_rate"] > 0


def test_the_config_of_a_run_is_the_resolved_one(finished) -> None:
    resolved = load_config(TrainConfig, finished / "config.yaml")
    assert resolved.train.max_steps == 30
    assert resolved.data.path == str(WEATHER)


def test_the_model_card_says_how_the_model_was_made(finished) -> None:
    card = (finished / "final" / "README.md").read_text()
    for fact in (
        "library_name: transformers",
        "30 of 30",
        "validation loss (best)",
        "learning_rate: 0.001",
        "| data | 6",
    ):
        assert fact in card


def test_a_tiny_model_has_the_sizes_that_were_chosen(tmp_path) -> None:
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "vocab_size": 300}
    train(tmp_path, tmp_path / "run", model={"path": None, "tiny": "llama", **sizes}, train={"max_steps": 1})
    config = AutoConfig.from_pretrained(tmp_path / "run" / "base")
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (1, 2, 1)
    assert (config.hidden_size, config.head_dim) == (32, 16)


def test_terms_and_sources_are_reported_apart(base, tmp_path) -> None:
    sources = {"a": {"path": str(WEATHER), "ratio": 2}, "b": {"path": str(WEATHER), "ratio": 1, "max_samples": 3}}
    objective = {"name": "combined", "bc_weight": 0.6, "world_model_weight": 0.4}
    data = {"path": None, "sources": sources, "validation_split": 0.34}
    train(base, tmp_path / "run", data=data, objective=objective, train={"per_device_train_batch_size": 9})
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["eval_sources"].keys() == {"a", "b"}
    terms = row["eval_terms"]
    assert terms.keys() == {"behavioral_cloning", "world_model"}
    loss = 0.6 * terms["behavioral_cloning"]["loss"] + 0.4 * terms["world_model"]["loss"]
    assert row["eval_loss"] == pytest.approx(loss)


def test_a_term_that_nothing_in_the_data_has_is_told_of(base, tmp_path, caplog) -> None:
    objective = {"name": "combined", "observation_roles": ["tols"]}
    train(base, tmp_path / "run", objective=objective, train={"max_steps": 1})
    assert "no token of the training data has a weight in world_model, so it trains nothing" in caplog.text
    caplog.clear()
    train(base, tmp_path / "other", objective={"name": "combined"}, train={"max_steps": 1})
    assert "trains nothing" not in caplog.text


def test_what_the_chat_template_does_not_print_is_told_of(base, tmp_path, caplog) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% set tools = none %}" + (base / "chat_template.jinja").read_text())
    rendering = {"chat_template": str(template)}
    with caplog.at_level("WARNING", "understudy"):
        train(base, tmp_path / "run", rendering=rendering, train={"max_steps": 1})
    assert "trajectories whose tools the chat template does not print" in caplog.text


def test_a_validation_file_is_reported_under_its_own_name(base, tmp_path) -> None:
    result = train(base, tmp_path / "run", data={"validation_path": str(WEATHER)}, train={"max_steps": 1})
    assert result.eval_loss is not None
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["eval_sources"].keys() == {"validation"}


# What decides how it is computed decides no result.


@pytest.fixture(scope="module")
def plain_losses(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run in float32, depth first."""
    output = tmp_path_factory.mktemp("runs") / "plain"
    train(base, output)
    return metrics(output)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"layout": "rows"}, 1e-5),
        ({"layout": "tree"}, 1e-5),
        ({"max_tokens_per_batch": 64}, 1e-5),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}, 1e-5),
        ({"gradient_checkpointing": True}, 1e-5),
        ({"activation_offloading": True}, 1e-5),
        ({"optim": "adamw_torch"}, 1e-4),
        ({"bf16": True}, 2e-2),
        ({"fp16": True}, 2e-2),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_how_it_is_computed_does_not_change_the_losses(base, tmp_path, plain_losses, settings, tolerance) -> None:
    train(base, tmp_path / "run", train=settings)
    assert metrics(tmp_path / "run") == pytest.approx(plain_losses, rel=tolerance)


# LoRA.


def test_an_adapter_is_saved_as_peft_has_it_and_loads_there(base, tmp_path) -> None:
    from peft import PeftModel

    lora = {"lora_r": 4, "use_rslora": True, "lora_dropout": 0.1}
    train(base, tmp_path / "run", lora=lora, train={"learning_rate": 1e-2})
    final = tmp_path / "run" / "final"
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {f.name for f in final.iterdir()}
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.arange(10)[None]
    before = plain(ids).logits
    adapted = PeftModel.from_pretrained(plain, final)
    assert not torch.allclose(adapted(ids).logits, before)
    assert json.loads((final / "adapter_config.json").read_text())["use_rslora"]


def test_an_adapter_can_be_merged_into_a_model_that_needs_no_peft(base, tmp_path) -> None:
    from peft import PeftModel

    from understudy.models.export import export_model

    train(base, tmp_path / "run", lora={"lora_r": 4, "use_dora": True}, train={"learning_rate": 1e-2})
    export_model(tmp_path / "run", tmp_path / "merged")
    ids = torch.arange(10)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "run" / "final")
    assert torch.allclose(merged, adapter.eval()(ids).logits, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert not list((tmp_path / "merged").glob("adapter*"))


def test_tied_embeddings_can_be_trained_whole_beside_an_adapter(base, tmp_path) -> None:
    from understudy.models.export import export_model

    lora = {"lora_r": 2, "modules_to_save": ["embed_tokens"]}
    train(base, tmp_path / "run", lora=lora, train={"learning_rate": 1e-2})
    export_model(tmp_path / "run", tmp_path / "merged")
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, tmp_path / "merged"))
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    assert after.get_input_embeddings().weight is after.get_output_embeddings().weight


def test_a_checkpoint_can_be_saved_once_an_epoch(base, tmp_path) -> None:
    epochs = {"max_steps": None, "num_train_epochs": 2, "save_steps": None}
    train(base, tmp_path / "run", train=epochs)  # six episodes, two a step
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}


# Best checkpoints and early stopping.

# At this rate the validation loss jumps up and down.
TOO_FAST = {"learning_rate": 1.0, "lr_scheduler_type": "constant", "eval_steps": 1}


def test_the_best_checkpoint_is_kept_and_can_become_the_final_one(base, tmp_path) -> None:
    settings = TOO_FAST | {"max_steps": 12, "save_steps": 1, "save_total_limit": 2, "load_best_model_at_end": True}
    result = train(base, tmp_path / "run", data={"validation_split": 0.3}, train=settings)
    losses = metrics(tmp_path / "run", "eval_loss")[1:]
    assert result.best_loss == min(losses)
    assert result.best_step == losses.index(min(losses)) + 1
    assert same(weights(tmp_path / "run" / "final"), weights(tmp_path / "run" / f"checkpoint-{result.best_step}"))
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {f"checkpoint-{step}" for step in (result.best_step, 11, 12)}


def test_a_run_stops_when_the_validation_loss_no_longer_falls(base, tmp_path) -> None:
    settings = TOO_FAST | {"max_steps": 50, "early_stopping_patience": 2}
    result = train(base, tmp_path / "run", data={"validation_split": 0.3}, train=settings)
    assert result.is_early
    losses = metrics(tmp_path / "run", "eval_loss")[1:]
    assert result.step == len(losses) < 50
    best = min(losses[:-2])
    assert min(losses[-2:]) >= best
    resumed = train(base, tmp_path / "run", data={"validation_split": 0.3}, train=settings, resume="auto")
    assert (resumed.step, resumed.is_early) == (result.step, True)
    assert (tmp_path / "run" / "final").is_dir()


# Trackers.


def test_metrics_go_to_tensorboard_too_when_it_is_named(base, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(base, tmp_path / "run", data={"validation_split": 0.3}, train={"report_to": "tensorboard"})
    (events,) = (tmp_path / "run").rglob("events.out.tfevents.*")
    found = EventAccumulator(str(events.parent)).Reload()
    losses = [event.value for event in found.Scalars("train/loss")]
    assert losses == pytest.approx(metrics(tmp_path / "run"))
    assert [event.value for event in found.Scalars("eval/loss")] == pytest.approx(
        metrics(tmp_path / "run", "eval_loss")
    )
