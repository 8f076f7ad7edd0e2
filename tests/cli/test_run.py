"""``understudy run`` and ``quickstart``: what they print, what they return, and what an interruption leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, command, run_command
from understudy.cli.main import main
from understudy.cli.quickstart import CONFIG

SMALL = """
collect: {environment: {name: math}, policy: {name: expert}, num_episodes: 16}
curate: {only_success: true}
train:
  model: {tiny: qwen3, hidden_size: 32, num_layers: 1, vocab_size: 400}
  train: {max_steps: 4, per_device_train_batch_size: 4, learning_rate: 1e-3}
evaluate: {num_tasks: 2, policy: {arguments: {max_new_tokens: 8}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"output_dir: {tmp_path / 'run'}\n{SMALL}")
    return path


def interrupted(config: Path, stage: str, how: signal.Signals, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Start a run and send it a signal once a stage has begun."""
    process = subprocess.Popen(
        command("run", config, *overrides), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    marker = config.parent / "run" / "stages" / f"{stage}.json"
    deadline = time.monotonic() + 120
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def status(config: Path, stage: str) -> str:
    return str(json.loads((config.parent / "run" / "stages" / f"{stage}.json").read_text())["status"])


def test_a_run_says_its_stages_shows_the_comparison_and_says_where_everything_is(config: Path) -> None:
    done = run_command("run", config)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line[1:3] == "/4"]
    assert [line.split(":")[0] for line in told[::2]] == ["1/4 collect", "2/4 curate", "3/4 train", "4/4 evaluate"]
    assert f"curate: starting, path={config.parent}/run/collect" in done.stderr
    assert f"baseline.arguments.model={config.parent}/run/train/base" in done.stderr
    assert "success" in done.stdout
    for place in ("train/loss.png", "train/final", "evaluate/report.html"):
        assert f"{config.parent}/run/{place}\n" in done.stdout
        assert (config.parent / "run" / place).exists()


def test_an_interrupted_run_says_so_by_its_status_and_goes_on_by_the_same_command(config: Path) -> None:
    many = ("collect.num_episodes=2000", "curate.max_trajectories=16")
    first = interrupted(config, "collect", signal.SIGINT, *many)
    assert first.returncode == 130
    assert "the same command goes on" in first.stderr
    assert status(config, "collect") == "begun"
    second = interrupted(config, "train", signal.SIGTERM, *many)
    assert second.returncode == 143
    assert (status(config, "curate"), status(config, "train")) == ("done", "begun")
    third = run_command("run", config, *many)
    assert third.returncode == 0, third.stderr
    assert "2/4 curate: done before" in third.stderr
    assert "3/4 train: going on" in third.stderr
    assert status(config, "evaluate") == "done"


def test_what_stops_a_stage_is_said_once(config: Path) -> None:
    done = run_command("run", config, "curate.min_reward_threshold=2", "iterations=2")
    assert done.returncode == 2
    assert done.stderr.count("no episode is left of 16") == 1
    assert done.stderr.splitlines()[-1].startswith("error: no episode is left of 16")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate.num_task=3"], "Did you mean 'evaluate.num_tasks'?"),
        (["curate.path=elsewhere"], "follows from the collect stage"),
        (["--from", "trian"], "unknown value 'trian'. Did you mean 'train'?"),
        (["evaluate=null", "--from", "evaluate"], "this run has the stages collect, curate, train."),
        (["--overwite"], "Did you mean '--overwrite'?"),
    ],
)
def test_a_mistake_is_answered_with_status_2_and_nothing_is_made(config: Path, capsys, arguments, said) -> None:
    assert main(["run", str(config), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (config.parent / "run").exists()


def test_a_dry_run_says_what_follows_and_makes_nothing(config: Path, capsys) -> None:
    assert main(["run", str(config), "--dry-run"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    for following in ("path=", "data.path=", "environment.name=math", "policy.name=local", "baseline.name=local"):
        assert following in shown
    assert not (config.parent / "run").exists()


def test_a_dry_run_plans_the_training_once_its_data_is_there(config: Path, capsys) -> None:
    assert main(["run", str(config), "train=null", "evaluate=null"]) == 0
    capsys.readouterr()
    assert main(["run", str(config), "--dry-run"]) == 0
    assert "tiny qwen3" in capsys.readouterr().out


def test_all_keys_of_all_stages_are_printed_on_request(capsys) -> None:
    assert main(["run", "--keys"]) == 0
    shown = capsys.readouterr().out
    for key in ("collect.environment", "curate.only_success", "train.train.learning_rate", "evaluate.num_tasks"):
        assert f"  {key}" in shown


def test_the_quick_start_is_the_recipe() -> None:
    assert (ROOT / "recipes" / "quickstart.yaml").read_bytes() == CONFIG.read_bytes()


def test_the_quick_start_leaves_the_folder_of_something_else_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["quickstart", "--output-dir", str(tmp_path)]) == 2
    assert "is not empty and holds no run (it has 'mine.txt')" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != ".lock"] == ["mine.txt"]
