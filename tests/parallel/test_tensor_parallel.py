"""Processes that share a model's layers, started by torchrun, do what one process does with the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.parallel.test_ddp import assert_same_run, finish, settings, start
from tests.training import train

SAME: dict[str, Any] = {"objective": {"name": "combined"}, "data": {"validation_split": 0.2}}
STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2}


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_parts_of_layers_compute_what_one_process_computes_and_other_sizes_go_on_with_it(base, tmp_path) -> None:
    # Five examples in steps of four: every second step has one, so one of two groups has none.
    whole = STEPS | {"per_device_train_batch_size": 4}
    train(base, tmp_path / "one", **SAME, train=whole)
    parts = STEPS | {"per_device_train_batch_size": 2, "tp_size": 2, "fsdp": True}
    file = settings(tmp_path, base, "four", **SAME, train=parts)
    output = finish(start(4, file))
    assert_same_run(tmp_path / "one", tmp_path / "four")
    assert output.count("trained 4 of 4 steps") == 1, output  # one process tells
    # A group has the random numbers of one process.
    assert files(tmp_path / "one" / "checkpoint-4") | {"random_state_1.pt"} == files(tmp_path / "four" / "checkpoint-4")

    for name in ("one", "four"):
        (tmp_path / name / "checkpoint-4" / "optimizer.pt").unlink()
    train(base, tmp_path / "four", **SAME, train=whole, resume="auto")
    alone = settings(tmp_path, base, "one", **SAME, train=whole | {"tp_size": 2})
    output = finish(start(2, alone, "--resume"))
    assert "passing over" in output
    assert_same_run(tmp_path / "one", tmp_path / "four")
