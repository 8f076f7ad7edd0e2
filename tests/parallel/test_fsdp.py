"""Two processes with a model in shards, started by torchrun, do what one process does with the whole model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.parallel.test_ddp import TIMEOUT_SECONDS, assert_same_run, finish, settings, start
from tests.training import metrics, train


def wait_for(is_there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_there():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_shards_compute_what_one_process_computes_and_either_goes_on_with_what_the_other_began(base, tmp_path) -> None:
    # Five examples in steps of four: every second step has one, so one of two ranks has none.
    same: dict[str, Any] = {"objective": {"name": "combined"}, "data": {"validation_split": 0.2}}
    shards = {"max_steps": 6, "per_device_train_batch_size": 2, "eval_steps": 3, "fsdp": True}
    whole = shards | {"gradient_accumulation_steps": 2}  # one process cuts nothing
    train(base, tmp_path / "one", **same, train=whole)
    output = finish(start(2, settings(tmp_path, base, "two", **same, train=shards)))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert output.count("trained 6 of 6 steps") == 1, output  # one rank tells
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "final").dtype == torch.float32
    files = [{f.name for f in (tmp_path / name / "checkpoint-6").iterdir()} for name in ("one", "two")]
    assert files[0] | {"random_state_1.pt"} == files[1]

    for name in ("one", "two"):
        (tmp_path / name / "checkpoint-6" / "optimizer.pt").unlink()
    train(base, tmp_path / "two", **same, train=whole | {"fsdp": False}, resume="auto")
    output = finish(start(2, settings(tmp_path, base, "one", **same, train=shards), "--resume"))
    assert "passing over" in output
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_killed_run_in_shards_goes_on_as_if_nothing_had_happened_and_stops_when_it_is_told_to(base, tmp_path) -> None:
    run = tmp_path / "run"
    steps = {"max_steps": 400, "per_device_train_batch_size": 1, "save_steps": 3, "fsdp": True, "bf16": True}
    file = settings(tmp_path, base, "run", lora={"lora_r": 4, "lora_dropout": 0.2}, train=steps)
    process = start(2, file)
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) >= 8, process)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    before = {key: metrics(run, key)[:8] for key in ("loss", "grad_norm")}
    for checkpoint in run.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-3":
            shutil.rmtree(checkpoint)

    process = start(2, file, "--resume")
    wait_for((run / "checkpoint-9").exists, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in output, output[-4000:]
    for key in ("loss", "grad_norm"):
        assert metrics(run, key)[:8] == before[key]
    files = {file.name for file in (run / f"checkpoint-{len(metrics(run))}").iterdir()}
    assert {"adapter_model.safetensors", "optimizer.pt", "random_state_1.pt"} <= files
