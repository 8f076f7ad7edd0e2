from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import yaml

from tests.training import config, metrics
from understudy.cli.main import main

from .commands import command


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> Path:
    """A config file of a small run into ``tmp_path/run``."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config(base, tmp_path / "run", data={"validation_split": 0.3})))
    return file


def test_a_run_says_what_it_read_how_it_went_and_where_the_model_is(settings, tmp_path, capsys) -> None:
    assert main(["train", str(settings)]) == 0
    said = capsys.readouterr().err
    assert re.search(r"data: 6 episodes -> 4 trajectories to train on, 2 held out; 15 turns rendered exactly", said)
    assert re.search(r"self-check: on \d+ tokens trees give the loss and gradients of \d+ separate rows", said)
    assert re.search(r"step 6 of 6: validation loss \d\.\d{4} \(best so far\); behavioral_cloning \d", said)
    assert f"trained 6 of 6 steps; the model is in {tmp_path / 'run' / 'final'}" in said


def test_keys_are_overridden_wherever_they_stand_between_the_options(settings, tmp_path) -> None:
    arguments = [str(settings), "train.max_steps=1", "--overwrite", "data.validation_split=0", "train.save_steps=0"]
    assert main(["train", *arguments]) == 0
    assert len(metrics(tmp_path / "run")) == 1
    assert metrics(tmp_path / "run", "eval_loss") == []


def test_resume_goes_on_and_a_second_start_without_it_is_refused(settings, tmp_path, capsys) -> None:
    assert main(["train", str(settings), "train.max_steps=2"]) == 0
    assert main(["train", str(settings)]) == 2
    assert "holds a finished run; resume it" in capsys.readouterr().err
    assert main(["train", str(settings), "--resume"]) == 0
    said = capsys.readouterr().err
    assert "going on from" in said
    assert "train.max_steps was 2 and is 6: the learning rate goes on along the new schedule" in said
    assert len(metrics(tmp_path / "run")) == 6


def test_a_dry_run_shows_data_plan_and_memory_and_leaves_nothing(settings, tmp_path, capsys) -> None:
    assert main(["train", str(settings), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for fact in ("episodes", "held out", "6 of 2 trajectories", "saved by trees", "optimiser", "longest row"):
        assert fact in shown
    assert not (tmp_path / "run").exists()


def test_a_dry_run_knows_what_an_adapter_trains(settings, capsys) -> None:
    assert main(["train", str(settings), "--dry-run", "lora.lora_r=2"]) == 0
    found = re.search(r"([\d,]+) parameters, ([\d,]+) trained", capsys.readouterr().out)
    assert found is not None
    total, trained = (int(text.replace(",", "")) for text in found.groups())
    assert trained < total / 5


def test_all_keys_can_be_listed(capsys) -> None:
    assert main(["train", "--keys"]) == 0
    listed = capsys.readouterr().out
    for key in ("train.learning_rate", "lora.lora_r", "data.sources.N.ratio", "rendering.on_refusal", "model.tiny"):
        assert re.search(rf"^  {re.escape(key)}[ ,]", listed, re.MULTILINE)


def test_a_config_is_known_by_its_file_wherever_that_lies(settings, tmp_path, capsys) -> None:
    (tmp_path / "lr=1e-4").mkdir()
    moved = settings.rename(tmp_path / "lr=1e-4" / "run.yaml")
    assert main(["train", str(moved), "--dry-run", "train.max_steps=1"]) == 0
    for verb in ("collect", "curate"):
        assert main([verb, str(moved)]) == 2
        assert f"{moved}: " in capsys.readouterr().err, "it was read, and is the config of another verb"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the config file first"),
        (["train.max_steps=1"], "name the config file first"),
        (["nowhere.yaml"], "nowhere.yaml: cannot read this config"),
        (["SETTINGS", "train.learnin_rate=1"], "Did you mean 'train.learning_rate'?"),
        (["SETTINGS", "lora.lora_r=0"], "should be greater than or equal to 1, got 0"),
        (["SETTINGS", "--resum"], "unknown option '--resum'. Did you mean '--resume'?"),
        (["SETTINGS", "--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_a_wrong_command_is_refused_with_status_2(arguments, said: str, settings, tmp_path, capsys) -> None:
    assert main(["train", *(str(settings) if word == "SETTINGS" else word for word in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_data_that_cannot_be_trained_is_refused_with_status_1(settings, capsys) -> None:
    assert main(["train", str(settings), "data.max_length=10"]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_saved_checkpoint_and_the_shells_status(settings, tmp_path, how) -> None:
    arguments = command("train", settings, "train.max_steps=100000", "train.save_steps=0", "data.validation_split=0")
    process = Popen(arguments, stderr=PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.jsonl").exists() or len(metrics(tmp_path / "run")) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + how
    step = len(metrics(tmp_path / "run"))
    assert f"stopped by {how.name} after step {step} of 100000; a checkpoint is saved" in said
    assert (tmp_path / "run" / f"checkpoint-{step}" / "checkpoint.json").exists()


def test_an_adapter_is_exported_as_a_whole_model(settings, tmp_path, capsys) -> None:
    assert main(["train", str(settings), "lora.lora_r=2", "train.max_steps=1"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "merged"), "--dtype", "bfloat16"]) == 0
    assert "merged the adapter in" in capsys.readouterr().err
    assert (tmp_path / "merged" / "model.safetensors").exists()
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "merged")]) == 2
    assert main(["export", str(tmp_path), str(tmp_path / "other")]) == 2
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "x"), "--dtype", "float8"]) == 2
