from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from understudy.errors import CheckpointError
from understudy.train.checkpoints import MARKER, Checkpoints, copy_model_files, read_checkpoint

WEIGHTS = bytes(range(256)) * 64


def write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "templates").mkdir()
    (folder / "templates" / "tool_use.jinja").write_text("{{ messages }}")
    (folder / "optimizer.pt").write_bytes(b"moments")


def saved(folder: Path, *steps: int, **options: object) -> Checkpoints:
    checkpoints = Checkpoints(folder, **options)  # type: ignore[arg-type]
    for step in steps:
        checkpoints.save(step, {"train": {"step": step}}, write)
    return checkpoints


def test_the_newest_checkpoint_comes_back_with_its_state(tmp_path) -> None:
    found = saved(tmp_path, 9, 10, 2).newest()
    assert found is not None
    assert (found.path, found.step, found.state) == (tmp_path / "checkpoint-10", 10, {"train": {"step": 10}})
    assert (found.path / "model.safetensors").read_bytes() == WEIGHTS


def test_there_is_none_in_an_empty_folder(tmp_path) -> None:
    assert Checkpoints(tmp_path).newest() is None


@pytest.mark.parametrize("name", ["model.safetensors", "templates/tool_use.jinja", "optimizer.pt", MARKER])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path, caplog, name: str, damage: str) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    file = tmp_path / "checkpoint-2" / name
    if damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "gone":
        file.unlink()
    elif name == MARKER:
        file.write_text(file.read_text().replace('"step"', '"stop"', 1))
    else:
        content = bytearray(file.read_bytes())
        content[3] ^= 1
        file.write_bytes(content)
    with caplog.at_level(logging.WARNING, "understudy"):
        found = checkpoints.newest()
    assert found is not None
    assert found.step == 1
    assert "passing over" in caplog.text
    assert "checkpoint-2" in caplog.text


def test_all_checkpoints_damaged_is_as_none(tmp_path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "checkpoint-1" / "optimizer.pt").unlink()
    assert checkpoints.newest() is None


def test_only_the_newest_and_the_protected_are_kept(tmp_path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3, total_limit=2)
    assert checkpoints.steps() == [2, 3]
    for step in (4, 5):
        checkpoints.save(step, {}, write, protected=[2])
    assert checkpoints.steps() == [2, 4, 5]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_failed_save_leaves_everything_as_it_was_and_says_why(tmp_path, error: Exception) -> None:
    checkpoints = saved(tmp_path, 1, total_limit=1)

    def fails(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(CheckpointError, match=r"cannot save .*checkpoint-2: .*MiB are free.*untouched.*--resume"):
        checkpoints.save(2, {}, fails)
    assert checkpoints.steps() == [1]
    assert read_checkpoint(tmp_path / "checkpoint-1").step == 1
    assert not list(tmp_path.glob(".*"))


def test_what_comes_after_a_part_that_fails_is_not_begun(tmp_path: Path) -> None:
    begun: list[str] = []

    def fails(folder: Path) -> None:
        raise OSError("no space left on device")

    with pytest.raises(CheckpointError, match="no space left"):
        Checkpoints(tmp_path).save(2, {}, lambda _: begun.append("first"), fails, lambda _: begun.append("third"))
    assert begun == ["first"]


def test_saving_a_step_again_replaces_a_damaged_one(tmp_path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    checkpoints.save(2, {"again": True}, write)
    found = checkpoints.newest()
    assert found is not None
    assert found.state == {"again": True}


def test_what_a_kill_left_half_written_is_no_checkpoint_and_is_removed(tmp_path, caplog) -> None:
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / ".checkpoint-2.tmp")
    assert checkpoints.steps() == [1]
    with caplog.at_level(logging.WARNING, "understudy"):
        checkpoints.remove_leftovers()
    assert "checkpoint-2" in caplog.text
    assert not list(tmp_path.glob(".*"))


def test_a_stranger_among_the_checkpoints_is_left_alone(tmp_path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert saved(tmp_path, 1, total_limit=1).steps() == [1]
    assert (tmp_path / "checkpoint-best").is_dir()


def test_the_model_is_copied_without_the_training_state(tmp_path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "old").write_text("of an earlier end")
    copy_model_files(tmp_path / "checkpoint-1", tmp_path / "final", {"README.md": "card"})
    names = {file.relative_to(tmp_path / "final").as_posix() for file in (tmp_path / "final").rglob("*")}
    assert names == {"model.safetensors", "templates", "templates/tool_use.jinja", "README.md"}


def test_the_marker_can_be_read_without_understudy(tmp_path) -> None:
    saved(tmp_path, 3)
    marker = json.loads((tmp_path / "checkpoint-3" / MARKER).read_text())
    assert marker["step"] == 3
    assert marker["files"]["model.safetensors"]["size"] == len(WEIGHTS)
