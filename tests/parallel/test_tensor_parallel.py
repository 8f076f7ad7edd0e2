"""Processes that share a model's layers, started by torchrun, do what one process does with the whole model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.parallel.test_ddp import assert_same_run, finish, settings, start
from tests.training import train


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_parts_of_layers_go_on_with_what_one_process_began_and_one_with_what_they_did(base, tmp_path) -> None:
    # Five examples in steps of four: every second step has one, so one of two groups has none.
    same: dict[str, Any] = {"objective": {"name": "combined"}, "data": {"validation_split": 0.2}}
    steps = {"max_steps": 6, "eval_steps": 2, "save_steps": 2}
    whole = steps | {"per_device_train_batch_size": 4}
    one, four = tmp_path / "one", tmp_path / "four"
    train(base, one, **same, train=whole)
    shutil.copytree(one, four)
    for name in ("checkpoint-4", "checkpoint-6", "final"):
        shutil.rmtree(four / name)

    parts = steps | {"per_device_train_batch_size": 2, "tp_size": 2, "fsdp": True}
    output = finish(start(4, settings(tmp_path, base, "four", **same, train=parts), "--resume"))
    assert_same_run(one, four)
    assert output.count("trained 6 of 6 steps") == 1, output  # one process tells
    # A group has the random numbers of one process.
    assert files(one / "checkpoint-4") | {"random_state_1.pt"} == files(four / "checkpoint-4")

    shutil.rmtree(four / "checkpoint-6")
    train(base, four, **same, train=whole, resume="auto")
    assert_same_run(one, four)
