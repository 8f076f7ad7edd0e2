"""A run that was stopped goes on as itself, and only as itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import understudy
from tests.training import WEATHER, config, metrics, same, train, weights
from understudy.errors import CheckpointError, ConfigError, UnderstudyError
from understudy.train.reporting import Reporter


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


def test_muon_and_adamw_go_on_together(base, tmp_path, monkeypatch) -> None:
    options = {"train": {"optim": "muon", "learning_rate": 1e-2}}
    train(base, tmp_path / "peaceful", **options)
    with monkeypatch.context() as patched:
        stopping_after(patched, 3, signal.SIGTERM)
        train(base, tmp_path / "stopped", **options)
    train(base, tmp_path / "stopped", resume="auto", **options)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "peaceful")
    assert metrics(tmp_path / "stopped", "learning_rate") == metrics(tmp_path / "peaceful", "learning_rate")
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


def test_a_run_that_was_refused_is_gone_on_with_from_its_own_config(base, tmp_path) -> None:
    train(base, tmp_path / "run", train={"max_steps": 2})
    with pytest.raises(CheckpointError, match="learning_rate"):
        train(base, tmp_path / "run", resume="auto", train={"max_steps": 4, "learning_rate": 2e-3})
    saved = tmp_path / "run" / "config.yaml"
    assert understudy.train(saved, overrides=["resume=auto", "train.max_steps=4"]).step == 4
    assert understudy.train(saved, overrides=["resume=auto"]).num_steps == 4


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


def test_a_run_that_is_made_longer_takes_its_next_step_at_the_rate_of_the_new_schedule(base, tmp_path) -> None:
    train(base, tmp_path / "long", train={"max_steps": 8})
    train(base, tmp_path / "run", train={"max_steps": 4})
    train(base, tmp_path / "run", resume="auto", train={"max_steps": 8})
    assert metrics(tmp_path / "run", "learning_rate")[4:] == metrics(tmp_path / "long", "learning_rate")[4:]


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_best_checkpoint_that_is_not_whole_does_not_become_the_final_model(base, tmp_path, damage: str) -> None:
    settings = {"eval_steps": 1, "save_steps": 0, "learning_rate": 1.0, "load_best_model_at_end": True}
    options = {"data": {"validation_split": 0.3}, "train": settings}
    run = tmp_path / "run"
    best = train(base, run, **options).best_step
    assert best is not None
    assert best < 6
    before = weights(run / "final")
    if damage == "gone":
        shutil.rmtree(run / f"checkpoint-{best}")
    else:
        file = run / f"checkpoint-{best}" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=rf"checkpoint-{best}: .*set it to false and go on with --resume"):
        train(base, run, resume="auto", **options)
    assert same(before, weights(run / "final"))
    train(base, run, resume="auto", **options | {"train": settings | {"load_best_model_at_end": False}})
    assert same(weights(run / "checkpoint-6"), weights(run / "final"))


def test_a_folder_that_holds_a_run_is_not_overwritten_by_accident(base, tmp_path) -> None:
    train(base, tmp_path / "run", train={"max_steps": 1})
    with pytest.raises(ConfigError, match="holds a finished run; resume it, overwrite it"):
        train(base, tmp_path / "run", train={"max_steps": 1})
    understudy.train(config(base, tmp_path / "run", train={"max_steps": 2}), overwrite=True)
    assert len(metrics(tmp_path / "run")) == 2


def test_a_run_that_failed_before_its_first_step_can_be_started_again(base, tmp_path) -> None:
    with pytest.raises(UnderstudyError):
        train(base, tmp_path / "run", data={"max_length": 20})
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["status"] == "failed"
    assert train(base, tmp_path / "run", train={"max_steps": 1}).step == 1
