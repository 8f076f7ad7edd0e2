"""Two processes with a model in shards, started by torchrun, do what one process does with the whole model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.parallel.test_ddp import TIMEOUT_SECONDS, assert_same_run, finish, settings, start
from tests.training import metrics, train


def wait_for_steps(folder: Path, process: subprocess.Popen[str], num_steps: int) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < num_steps:
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


def test_a_killed_run_in_shards_goes_on_as_if_nothing_had_happened(base, tmp_path) -> None:
    steps = {"per_device_train_batch_size": 1, "save_steps": 3, "lr_scheduler_type": "constant", "fsdp": True}
    lora = {"lora_r": 4, "lora_dropout": 0.2}
    file = settings(tmp_path, base, "run", lora=lora, train=steps | {"max_steps": 400})
    process = start(2, file)
    wait_for_steps(tmp_path / "run", process, 8)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    before = {key: metrics(tmp_path / "run", key)[:8] for key in ("loss", "grad_norm")}
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-3":
            shutil.rmtree(checkpoint)
    output = finish(start(2, file, "--resume", "train.max_steps=8"))
    assert "going on from" in output
    for key in ("loss", "grad_norm"):
        assert metrics(tmp_path / "run", key) == before[key]
    assert (tmp_path / "run" / "final" / "adapter_model.safetensors").is_file()


def test_shards_stop_together_when_they_are_told_to(base, tmp_path) -> None:
    steps = {"max_steps": 400, "per_device_train_batch_size": 1, "save_steps": 0, "fsdp": True, "bf16": True}
    process = start(2, settings(tmp_path, base, "run", train=steps))
    wait_for_steps(tmp_path / "run", process, 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    assert "stopped by SIGTERM after step" in output, output[-4000:]
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert "random_state_1.pt" in {file.name for file in checkpoint.iterdir()}
