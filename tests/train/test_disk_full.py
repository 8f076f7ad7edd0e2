"""A disk that is full, or a file system that takes no more, while a checkpoint is being written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training import config, metrics
from understudy.train.checkpoints import read_checkpoint

# The limit takes hold when the second checkpoint is written: no file may then be larger than a few bytes, as on a disk
# without room. What is being written fails half-way, in safetensors' own code.
COMMAND = """
import resource, sys
from understudy.cli.main import main
from understudy.train.checkpoints import Checkpoints

save = Checkpoints.save

def full(self, step, *args, **kwargs):
    if step == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    return save(self, step, *args, **kwargs)

Checkpoints.save = full
sys.exit(main())
"""


def run(code: str, settings: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, "train", str(settings), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def test_a_full_disk_is_an_error_that_loses_nothing(base, tmp_path) -> None:
    output = tmp_path / "run"
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump(config(base, output)))
    stopped = run(COMMAND, settings)
    assert stopped.returncode == 1
    assert "cannot save" in stopped.stderr
    assert "File too large" in stopped.stderr
    assert "All earlier checkpoints are untouched: make room, then go on with --resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert read_checkpoint(output / "checkpoint-2").step == 2
    assert not list(output.glob(".checkpoint*"))
    assert json.loads((output / "provenance.json").read_text())["status"] == "failed"

    resumed = run("import sys; from understudy.cli.main import main; sys.exit(main())", settings, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert len(metrics(output)) == 6
    assert (output / "final" / "model.safetensors").exists()


def test_a_disk_that_cannot_hold_the_result_is_refused_before_training(base, tmp_path, monkeypatch) -> None:
    import understudy
    from understudy.errors import TrainError

    usage: Any = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(TrainError, match=r"0.00 GiB are free on this disk, but a checkpoint and the final model need"):
        understudy.train(config(base, tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
