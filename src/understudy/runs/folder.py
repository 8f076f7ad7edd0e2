"""The run folder: one place that holds all that a run is and was, readable without Understudy.

``config.yaml`` (resolved), ``provenance.json`` (what ran, when, with which versions, on which data), ``metrics.jsonl``,
``run.log``, and what the run makes: checkpoints, plots, reports. The provenance is written first: a folder that has one
is a run, and any other folder that is not empty belongs to somebody else and is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import platform
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal

from understudy.errors import ConfigError

from .atomic import TEMPORARY_SUFFIX, write_atomically
from .metrics import MetricsWriter

PACKAGES = ("understudy", "torch", "transformers", "tokenizers", "peft", "numpy", "pydantic", "pyarrow")
CONFIG = "config.yaml"
LOCK = ".lock"

log = logging.getLogger("understudy.runs")

Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass(slots=True)
class RunFolder:
    """An open run. One process holds it at a time; the lock goes when the process does."""

    path: Path
    is_resumed: bool
    _lock: IO[bytes] = field(repr=False)
    _log_handler: logging.Handler = field(repr=False)
    _config_before: bytes | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        config: str,
        data: Mapping[str, Any] | None = None,
        command: Sequence[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        adopt: Collection[str] = (),
    ) -> RunFolder:
        """Start a run in a new or empty folder, or go on with one.

        Args:
            path: the folder; missing parents are made.
            config: the resolved config as YAML, kept as ``config.yaml``.
            data: fingerprints of what the run reads, kept in the provenance.
            command: the command line; `sys.argv` by default.
            resume: go on with the run that the folder holds; without one, start.
            overwrite: delete the run that the folder holds, and start.
            adopt: names that may be there before the run is.

        Raises:
            ConfigError: the folder holds a run and neither flag is set, or something that is no run, or another process
                holds it.
        """
        if resume and overwrite:
            raise ConfigError(f"{path}: resume and overwrite exclude each other; give one")
        path = Path(path)
        _make_folder(path)
        lock = _take_lock(path)
        try:
            previous = _read_provenance(path)
            _check_free(path, previous, resume=resume, overwrite=overwrite, adopt=adopt)
            if overwrite and (previous is not None or adopt):
                _empty(path)
                previous = None
            provenance = previous or {"schema_version": 1, "status": "running", "finished_at": None, "starts": []}
            provenance["starts"] = [*provenance["starts"], _start(command)]
            provenance |= {"status": "running", "finished_at": None, "data": dict(data or {})}
            _write_provenance(path, provenance)
            before = (path / CONFIG).read_bytes() if previous is not None and (path / CONFIG).is_file() else None
            write_atomically(path / CONFIG, config)
            return cls(path, previous is not None, lock, _open_log(path), before)
        except BaseException:
            lock.close()
            raise

    @property
    def provenance(self) -> dict[str, Any]:
        """What ``provenance.json`` holds."""
        provenance = _read_provenance(self.path)
        if provenance is None:
            raise ConfigError(f"{self.path}: provenance.json has gone while the run was under way")
        return provenance

    def metrics(self, *, keep_through_step: int | None = None) -> MetricsWriter:
        """Open ``metrics.jsonl`` for appending."""
        return MetricsWriter(self.path / "metrics.jsonl", keep_through_step=keep_through_step)

    def note(self, **facts: Any) -> None:
        """Add facts to the provenance's ``data`` that are known only once the run is under way."""
        provenance = self.provenance
        provenance["data"] = provenance["data"] | facts
        _write_provenance(self.path, provenance)

    def restore_config(self) -> None:
        """Put back the config that the folder held before: what it holds was not gone on with under the new one."""
        if self._config_before is not None:
            write_atomically(self.path / CONFIG, self._config_before)

    def close(self, status: Status) -> None:
        """Write how the run ended, and let the folder go."""
        provenance = self.provenance | {"status": status, "finished_at": _now()}
        _write_provenance(self.path, provenance)
        logging.getLogger("understudy").removeHandler(self._log_handler)
        self._log_handler.close()
        self._lock.close()

    def fail(self, error: BaseException) -> None:
        """Write that an error ended the run, and let the folder go.

        The error goes into this run's log alone: whoever catches it shows it, and folders within one another would each
        say it again.
        """
        with contextlib.suppress(OSError):  # a full disk must not hide the error that it caused
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._log_handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))
            self.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")


@contextlib.contextmanager
def hold_folder(path: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder that is no run's; it is made where it is missing.

    Raises:
        ConfigError: it cannot be made or written to, or another process holds it.
    """
    _make_folder(Path(path))
    with _take_lock(Path(path)):
        yield


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that a result depends on, without importing them; None where absent."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def _start(command: Sequence[str] | None) -> dict[str, Any]:
    return {
        "at": _now(),
        "command": list(sys.argv if command is None else command),
        "working_directory": str(Path.cwd()),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot make this folder: {error.strerror}") from error


def _take_lock(path: Path) -> IO[bytes]:
    """Hold the folder until the returned file is closed."""
    try:
        lock = (path / LOCK).open("ab")
    except OSError as error:
        raise ConfigError(f"{path}: cannot write to this folder: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"{path}: another process is running in this folder; wait for it or name another") from error
    except OSError as error:
        log.warning("%s: this file system has no locks (%s); do not start two processes in it", path, error.strerror)
    return lock


def _read_provenance(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((path / "provenance.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}/provenance.json: not JSON: {error}; name another folder") from error
    if not isinstance(value, dict) or not isinstance(value.get("starts"), list):
        raise ConfigError(f"{path}/provenance.json: not the provenance of a run; name another folder")
    return value


def _write_provenance(path: Path, provenance: Mapping[str, Any]) -> None:
    write_atomically(path / "provenance.json", json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")


def _check_free(
    path: Path, previous: Mapping[str, Any] | None, *, resume: bool, overwrite: bool, adopt: Collection[str]
) -> None:
    if previous is not None and not (resume or overwrite):
        state = "a finished run" if previous.get("status") == "finished" else "a run that did not finish"
        raise ConfigError(f"{path}: holds {state}; resume it, overwrite it, or name another folder")
    if previous is None:
        strangers = [entry.name for entry in path.iterdir() if not _is_ours(entry.name) and entry.name not in adopt]
        if strangers:
            raise ConfigError(
                f"{path}: is not empty and holds no run (it has {sorted(strangers)[0]!r}); name another folder"
            )


def _is_ours(name: str) -> bool:
    return name == LOCK or name.endswith(TEMPORARY_SUFFIX)


def _empty(path: Path) -> None:
    """Delete a run, its provenance last, so that a kill half-way leaves something that is still known as a run."""
    if Path.cwd().resolve().is_relative_to(path.resolve()):
        raise ConfigError(f"{path}: cannot overwrite the folder that the command was started in")
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == "provenance.json"):
        if entry.name == LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _open_log(path: Path) -> logging.Handler:
    """Let all that Understudy logs also go to ``run.log``, with times in UTC."""
    handler = logging.FileHandler(path / "run.log", encoding="utf-8")
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.getLogger("understudy").addHandler(handler)
    return handler
