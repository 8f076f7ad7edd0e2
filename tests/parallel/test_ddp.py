"""Two processes with gloo, started by torchrun, do what one process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.training import config, metrics
from understudy.formats import read_episodes

COMMAND = "import sys; from understudy.cli.main import main; sys.exit(main())"
TIMEOUT_SECONDS = 240


def command(num_processes: int, settings: Path, *options: str) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes), "--no-python"]
    launcher = [sys.executable, *torchrun] if num_processes > 1 else []
    return [*launcher, sys.executable, "-c", COMMAND, "train", str(settings), *options]


def start(*arguments: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        command(*arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, output[-4000:]
    return output


def settings(folder: Path, base: Path, name: str, **sections: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config(base, folder / name, **sections)))
    return file


def assert_same_run(a: Path, b: Path) -> None:
    for key in ("loss", "grad_norm", "eval_loss"):
        assert metrics(b, key) == pytest.approx(metrics(a, key), rel=2e-5), key
    one, two = load_file(a / "final" / "model.safetensors"), load_file(b / "final" / "model.safetensors")
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-4, name


def test_two_processes_compute_what_one_computes_and_one_goes_on_with_what_two_began(base, tmp_path) -> None:
    # Five examples in steps of four: every second step has one, so one of two ranks has none.
    playing = {"environment": {"name": "math"}, "num_tasks": 5, "arguments": {"max_new_tokens": 4}, "max_turns": 1}
    same = {"objective": {"name": "combined"}, "data": {"validation_split": 0.2}, "evaluation": playing}
    two = {"max_steps": 6, "per_device_train_batch_size": 2, "eval_steps": 3}
    one = two | {"gradient_accumulation_steps": 2}
    alone = start(1, settings(tmp_path, base, "one", **same, train=one))
    file = settings(tmp_path, base, "two", **same, train=two)
    output = finish(start(2, file))
    finish(alone)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert output.count("trained 6 of 6 steps") == 1, output  # one rank tells
    first = [list(read_episodes(tmp_path / name / "rollouts" / "step_000000.jsonl")) for name in ("one", "two")]
    actions = [[(e.id, [turn.action for _, _, turn in e.turns()]) for e in episodes] for episodes in first]
    assert actions[0] == actions[1]  # two ranks share the episodes out
    assert metrics(tmp_path / "two", "eval_num_episodes") == [5, 5, 5]

    (tmp_path / "two" / "checkpoint-6" / "optimizer.pt").unlink()
    output = finish(start(1, file, "--resume", "train.gradient_accumulation_steps=2"))
    assert "passing over" in output
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_two_processes_stop_together_and_go_on(base, tmp_path) -> None:
    train = {"max_steps": 400, "per_device_train_batch_size": 1, "save_steps": 0}
    file = settings(tmp_path, base, "run", lora={"lora_r": 4, "lora_dropout": 0.1}, train=train)
    process = start(2, file)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (tmp_path / "run" / "metrics.jsonl").exists() or len(metrics(tmp_path / "run")) < 3:
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in output, output[-4000:]
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    step = int(checkpoint.name.partition("-")[2])
    finish(start(2, file, "--resume", f"train.max_steps={step + 2}"))
    assert len(metrics(tmp_path / "run")) == step + 2


def test_the_same_processes_can_meet_more_than_once(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import os, time, torch
from understudy.train.distributed import gathered, process_group
for number in range(4):
    time.sleep(0.3 * (number % 2 == int(os.environ["RANK"])))
    with process_group(torch.device("cpu")):
        assert gathered(number) == [number, number]
""")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
