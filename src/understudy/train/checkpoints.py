"""Checkpoints that are whole or not there.

A checkpoint is written under a temporary name, brought onto the disk, given its marker (`checkpoint.json`: the step,
the trainer's state, and size and hash of every file) and only then its name. So a kill at any moment leaves the
checkpoints before it as they were, and what a kill, a full disk or a broken disk has damaged is seen when it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy.errors import CheckpointError
from understudy.runs.atomic import sync_folder

from .distributed import from_main, gathered
from .engine import Engine

MARKER = "checkpoint.json"
OPTIMIZER = "optimizer.pt"
_NAME = re.compile(r"checkpoint-(\d+)")
_SCHEMA_VERSION = 1

log = logging.getLogger("understudy.train")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found whole. `step` optimiser steps were done; `state` is the trainer's own."""

    path: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Every rank calls every method; only the main one touches the folder.

    Args:
        folder: the run's folder.
        total_limit: keep only so many, the newest; None keeps all.
        is_main: whether this is the rank that names, marks and deletes.
    """

    def __init__(self, folder: Path, *, total_limit: int | None = None, is_main: bool = True) -> None:
        self.folder = folder
        self._total_limit = total_limit
        self._is_main = is_main

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def save(
        self, step: int, state: dict[str, Any], *writes: Callable[[Path], None], protected: Collection[int] = ()
    ) -> Path:
        """Write a checkpoint, then delete those beyond the limit.

        Args:
            state: JSON; `newest` gives it back.
            writes: write the files into a folder; each is called on every rank, when all ranks are done with the one
                before. What ranks do together must come before what may fail on one of them.
            protected: steps whose checkpoints are not deleted.

        Raises:
            CheckpointError: it could not be written. What was there before is untouched, and nothing of it stays.
        """
        target = self.path(step)
        temporary = self.folder / f".{target.name}.tmp"
        self._agree(lambda: _empty_folder(temporary), target, on_main=True)
        try:
            for write in writes:
                self._agree(partial(write, temporary), target, on_main=False)
            self._agree(lambda: _finish(temporary, target, step, state), target, on_main=True)
        except CheckpointError:
            if self._is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        if self._is_main:
            self._prune({*protected, step})
        return target

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, on all ranks; say which ones are passed over, and why."""
        found: Checkpoint | None = from_main(self._find_newest() if self._is_main else None)
        return found

    def remove_leftovers(self) -> None:
        """Delete what a killed run was writing or deleting."""
        if not self._is_main:
            return
        for leftover in self.folder.glob(".checkpoint-*.tmp"):
            log.warning("removing %s, which was not finished when the run was killed", leftover.name.strip("."))
            shutil.rmtree(leftover, ignore_errors=True)

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, whole or not, in order."""
        found = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir() if entry.is_dir())
        return sorted(int(match.group(1)) for match in found if match)

    def _find_newest(self) -> Checkpoint | None:
        for step in reversed(self.steps()):
            try:
                return read_checkpoint(self.path(step))
            except CheckpointError as error:
                log.warning("passing over %s", error)
        return None

    def _prune(self, protected: Collection[int]) -> None:
        if self._total_limit is None:
            return
        steps = self.steps()
        for step in steps[: -self._total_limit]:
            if step not in protected:
                _delete(self.path(step))

    def _agree(self, work: Callable[[], None], target: Path, *, on_main: bool) -> None:
        """Do some work, on the main rank alone or on all; where it fails on one rank, raise on all."""
        cause: Exception | None = None
        if self._is_main or not on_main:
            try:
                work()
            # A full disk comes as OSError, SafetensorError or RuntimeError, depending on who was writing.
            except Exception as error:
                cause = error
        problem = cause and f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0]}"
        found = [problem for problem in gathered(problem) if problem]
        if found:
            free = shutil.disk_usage(self.folder).free / 2**20
            raise CheckpointError(
                f"cannot save {target}: {found[0]} ({free:,.0f} MiB are free there). All earlier checkpoints are "
                "untouched: make room, then go on with --resume"
            ) from cause


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint after holding every file against its marker.

    Raises:
        CheckpointError: it is incomplete or damaged.
    """
    try:
        marker = json.loads((path / MARKER).read_bytes())
        step, state, files = marker["step"], marker["state"], marker["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: incomplete: its {MARKER} cannot be read ({error})") from error
    for name, facts in files.items():
        try:
            size = (path / name).stat().st_size
            damaged = size != facts["size"] or _sha256(path / name) != facts["sha256"]
        except OSError as error:
            raise CheckpointError(f"{path}: incomplete: {name} cannot be read ({error.strerror})") from error
        if damaged:
            raise CheckpointError(f"{path}: damaged: {name} is not what was saved ({size:,} bytes)")
    return Checkpoint(path, step, state)


def write_training_state(engine: Engine, folder: Path) -> None:
    """Write what a run needs to go on besides the weights: optimiser, schedule, loss scale, random numbers."""
    state = engine.state()
    if engine.is_main:
        torch.save(state, folder / OPTIMIZER)
    if not engine.is_first:  # its random numbers are those of the first
        return
    random_state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["cuda"] = torch.cuda.get_rng_state()
    torch.save(random_state, _random_state_file(folder, engine.rank))


def read_training_state(engine: Engine, folder: Path) -> None:
    """Set an engine, and this process's random numbers, to what `write_training_state` wrote.

    Raises:
        CheckpointError: it does not fit the model or the optimiser.
    """
    try:
        # Mapped, because an engine that keeps a part of it need not read all, nor each process of a machine hold it.
        engine.load_state(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True))
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: its optimiser does not fit this run: {error}") from error
    file = _random_state_file(folder, engine.rank)
    if not file.exists():
        log.warning("%s: has no random numbers for rank %d (it was saved by fewer processes)", folder, engine.rank)
        return
    random_state = torch.load(file, map_location="cpu", weights_only=True)
    torch.set_rng_state(random_state["cpu"])
    if "cuda" in random_state and torch.cuda.is_available():
        torch.cuda.set_rng_state(random_state["cuda"])


def copy_model_files(checkpoint: Path, target: Path, more: Mapping[str, str]) -> None:
    """Copy a checkpoint without its training state, whole or not at all: what transformers and PEFT load.

    Args:
        more: the text of further files by name; they win over the checkpoint's.

    Raises:
        CheckpointError: it could not be written; `target` is then as it was.
    """
    temporary = target.with_name(f".checkpoint-{target.name}.tmp")
    try:
        _empty_folder(temporary)
        for name in _files(checkpoint):
            if name not in (MARKER, OPTIMIZER) and not name.startswith("random_state_"):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(checkpoint / name, temporary / name)
        for name, text in more.items():
            (temporary / name).write_text(text, encoding="utf-8")
        for name in _files(temporary):
            _sync_file(temporary / name)
        _rename(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write {target}: {error}. The same model stands in {checkpoint}: make room, go on with --resume"
        ) from error


def _random_state_file(folder: Path, rank: int) -> Path:
    return folder / f"random_state_{rank}.pt"


def _finish(temporary: Path, target: Path, step: int, state: dict[str, Any]) -> None:
    """Bring the files onto the disk, mark them, and give the folder its name."""
    files = {}
    for name in _files(temporary):
        _sync_file(temporary / name)
        files[name] = {"size": (temporary / name).stat().st_size, "sha256": _sha256(temporary / name)}
    marker = {"schema_version": _SCHEMA_VERSION, "step": step, "state": state, "files": files}
    with (temporary / MARKER).open("w", encoding="utf-8") as stream:
        json.dump(marker, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    _rename(temporary, target)


def _files(folder: Path) -> list[str]:
    """Return the names of all files below a folder, relative to it."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _rename(temporary: Path, target: Path) -> None:
    """Give a finished folder its name; an older one of that name goes."""
    sync_folder(temporary)
    if target.exists():
        _delete(target)
    temporary.rename(target)
    sync_folder(target.parent)


def _delete(path: Path) -> None:
    """Delete a folder under a temporary name, so that a kill half-way leaves nothing that looks like a checkpoint."""
    doomed = path.with_name(f".checkpoint-deleted-{path.name}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _empty_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
