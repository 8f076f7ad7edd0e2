"""Whole runs in this process: a tiny model on the example conversations."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import understudy
from tests.training import WEATHER, config, metrics
from understudy.config import load_config
from understudy.errors import CheckpointError, ConfigError, MissingDependency, RenderError, TrainError, UnderstudyError
from understudy.train.config import TrainConfig
from understudy.train.engines.local import LocalEngine
from understudy.train.reporting import Reporter


def train(base: Path, output: Path, **sections: Any) -> Any:
    return understudy.train(config(base, output, **sections))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (folder / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(folder / name)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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


# Going on.


def stopping_after(monkeypatch: pytest.MonkeyPatch, step: int, how: signal.Signals) -> None:
    """Send this process a signal when a step is done, as a scheduler or a user would."""
    told = Reporter.step

    def tell(self: Reporter, number: int, *args: Any, **kwargs: Any) -> None:
        told(self, number, *args, **kwargs)
        if number == step:
            os.kill(os.getpid(), how)

    monkeypatch.setattr(Reporter, "step", tell)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("lora", [None, {"lora_r": 4, "lora_dropout": 0.2}], ids=["full", "lora"])
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(base, tmp_path, monkeypatch, how, lora) -> None:
    options = {"data": {"validation_split": 0.3}, "lora": lora, "train": {"save_steps": 0, "eval_steps": 2}}
    train(base, tmp_path / "peaceful", **options)
    with monkeypatch.context() as patched:
        stopping_after(patched, 3, how)
        stopped = train(base, tmp_path / "stopped", **options)
    assert (stopped.signal, stopped.step, stopped.final) == (how, 3, None)
    assert json.loads((tmp_path / "stopped" / "provenance.json").read_text())["status"] == "interrupted"
    resumed = train(base, tmp_path / "stopped", resume="auto", **options)
    assert resumed.signal is None
    for key in ("loss", "grad_norm", "eval_loss"):
        assert metrics(tmp_path / "stopped", key) == metrics(tmp_path / "peaceful", key)
    assert same(weights(tmp_path / "stopped" / "final"), weights(tmp_path / "peaceful" / "final"))


def test_the_signals_handlers_are_put_back(base, tmp_path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(base, tmp_path / "run", train={"max_steps": 1})
    assert signal.getsignal(signal.SIGTERM) is before


def test_resuming_a_finished_run_changes_nothing(base, tmp_path) -> None:
    train(base, tmp_path / "run")
    before = weights(tmp_path / "run" / "final")
    result = train(base, tmp_path / "run", resume="auto")
    assert (result.step, result.num_steps) == (6, 6)
    assert same(before, weights(tmp_path / "run" / "final"))
    assert len(metrics(tmp_path / "run")) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"learning_rate": 2e-3}}, r"train.learning_rate was 0.001 and is 0.002"),
        ({"train": {"per_device_train_batch_size": 4}}, r"had 2 trajectories over all devices and has 4"),
        ({"data": {"max_samples": 5}}, r"data.max_samples was None and is 5"),
        ({"lora": {"lora_r": 2}}, r"lora"),
        ({"rendering": {"null_content": "null"}}, r"rendering.null_content was 'empty' and is 'null'"),
    ],
)
def test_a_run_is_not_resumed_as_another(base, tmp_path_factory, finished_small, changes, said: str) -> None:
    with pytest.raises(CheckpointError, match=rf"cannot go on from .*checkpoint-6.*{said}"):
        train(base, finished_small, resume="auto", **changes)


@pytest.fixture(scope="module")
def finished_small(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "small"
    train(base, output)
    return output


def test_a_run_is_not_resumed_with_other_data(base, tmp_path) -> None:
    rows = WEATHER.read_text().splitlines(keepends=True)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(rows))
    train(base, tmp_path / "run", data={"path": str(file)})
    file.write_text("".join(rows[::-1]))
    with pytest.raises(CheckpointError, match="the data is not the same"):
        train(base, tmp_path / "run", data={"path": str(file)}, resume="auto")


def test_batches_may_be_arranged_anew_and_more_steps_asked_for_when_resuming(base, tmp_path) -> None:
    train(base, tmp_path / "run")
    changes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "layout": "rows", "max_steps": 8}
    assert train(base, tmp_path / "run", resume="auto", train=changes).step == 8
    assert len(metrics(tmp_path / "run")) == 8


def test_a_folder_that_holds_a_run_is_not_overwritten_by_accident(base, tmp_path) -> None:
    train(base, tmp_path / "run", train={"max_steps": 1})
    with pytest.raises(ConfigError, match="holds a finished run; resume it, overwrite it"):
        train(base, tmp_path / "run", train={"max_steps": 1})
    understudy.train(config(base, tmp_path / "run", train={"max_steps": 2}), overwrite=True)
    assert len(metrics(tmp_path / "run")) == 2


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
    assert (tmp_path / "run" / "final").is_dir()


# What cannot work.


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
        ({"lora": {"lora_target_modules": "nothing.*"}}, ConfigError, "no layer matches the expression"),
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


def test_an_optimiser_that_is_not_installed_is_named(base, tmp_path) -> None:
    pytest.importorskip("torch")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependency, match="adamw_8bit needs the package 'bitsandbytes'"):
            train(base, tmp_path / "run", train={"optim": "adamw_8bit"})
    else:
        assert train(base, tmp_path / "run", train={"optim": "adamw_8bit"}).step == 6


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
