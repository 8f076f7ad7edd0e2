"""Markers: what is written down about each stage, so that nothing that is done is done again.

A stage's marker says that it has begun or that it is done, with which settings, and which files it read, by their
hashes. It is a file of its own in ``stages/``, written atomically. A stage whose settings or files are not those of its
marker is never taken for the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from understudy.errors import ConfigError
from understudy.runs import write_atomically

FOLDER = "stages"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that a stage read, as it was then."""

    path: str
    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """What is known of a stage.

    Args:
        is_done: it has come to its end; else it has begun.
        settings: its config without what follows from other stages.
        inputs: what it read.
        outputs: what it left: files and folders.
        summary: what came of it, in one line.
    """

    is_done: bool
    settings: dict[str, Any]
    inputs: tuple[ReadFile, ...]
    outputs: tuple[str, ...] = ()
    summary: str = ""


class Markers:
    """The markers of a run.

    Args:
        folder: the run's folder.
        root: a folder around it that is moved as a whole, where the run reads what lies beside it.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self._run = folder
        self._root = root or folder

    def read(self, stage: str) -> Marker | None:
        """Return a stage's marker; None where it has not begun.

        Raises:
            ConfigError: it cannot be read.
        """
        path = self._path(stage)
        try:
            row = json.loads(path.read_bytes())
            inputs = tuple(ReadFile(**file) for file in row["inputs"])
            return Marker(row["status"] == "done", row["settings"], inputs, tuple(row["outputs"]), row["summary"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: is no marker of a stage ({error}); start the stage anew: --from {stage}"
            ) from error

    def write(self, stage: str, marker: Marker) -> None:
        """Write a stage's marker, as a whole or not at all."""
        row = {
            "schema_version": _SCHEMA_VERSION,
            "stage": stage,
            "status": "done" if marker.is_done else "begun",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "summary": marker.summary,
            "settings": marker.settings,
            "inputs": [asdict(file) for file in marker.inputs],
            "outputs": list(marker.outputs),
        }
        path = self._path(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(row, indent=2, ensure_ascii=False) + "\n")

    def delete(self, stage: str) -> None:
        """Forget a stage."""
        self._path(stage).unlink(missing_ok=True)

    def read_files(self, paths: Iterable[str], known: Iterable[ReadFile] = ()) -> tuple[ReadFile, ...]:
        """Return what files are now.

        Args:
            known: what they were; one whose size and time are the same is not read again.

        Raises:
            OSError: one cannot be read.
        """
        before = {(file.path, file.size, file.modified_ns): file for file in known}
        found: list[ReadFile] = []
        for path in dict.fromkeys(paths):
            facts, name = Path(path).stat(), self.name(path)
            same = before.get((name, facts.st_size, facts.st_mtime_ns))
            found.append(same or ReadFile(name, facts.st_size, facts.st_mtime_ns, _sha256(path)))
        return tuple(found)

    def name(self, path: str | Path) -> str:
        """Return how a file is called in markers: within the run's root as from its folder, so that it can be moved."""
        whole, folder = Path(path).resolve(), self._run.resolve()
        return os.path.relpath(whole, folder) if whole.is_relative_to(self._root.resolve()) else str(whole)

    def missing(self, marker: Marker) -> list[str]:
        """Return what a stage has left and is there no longer."""
        return [output for output in marker.outputs if not (self._run / output).exists()]

    def _path(self, stage: str) -> Path:
        return self._run / FOLDER / f"{stage}.json"


def changed_files(before: Iterable[ReadFile], now: Iterable[ReadFile]) -> list[str]:
    """Return the files that have another content, have come, or have gone."""
    then, here = ({file.path: file.sha256 for file in files} for files in (before, now))
    return sorted(path for path in then.keys() | here.keys() if then.get(path) != here.get(path))


def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
