"""A recording from config to files: listen until interrupted, then write the episodes and their statistics.

The folder is that of a collection: while the endpoint listens, episodes stand in ``_journal.jsonl``, each anew after
each of its calls, so a kill loses none; at the end they are written in the order in which they began. Starting again in
the same folder goes on with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from understudy.config import config_from_dict, dump_config, read_document
from understudy.errors import ConfigError
from understudy.runs import RunFolder

from .collection import JOURNAL, Statistics, episodes_path, reopen, write_collected, write_stats
from .gateway import Gateway, serve
from .gateway_config import GatewayConfig
from .interruptible import run_interruptibly
from .journal import Journal


@dataclass(frozen=True, slots=True)
class RecordResult:
    """How a recording ended; `path` is None where no program called. Calls that failed are in no episode."""

    path: Path | None
    num_episodes: int
    num_calls: int
    num_failed: int


def record(
    config: GatewayConfig,
    on_ready: Callable[[str], None],
    *,
    statistics: Callable[[], Statistics] | None = None,
    overwrite: bool = False,
) -> RecordResult:
    """Listen until an interrupt, and write down what was recorded.

    Args:
        on_ready: is told the base URL for programs once the endpoint listens.
        statistics: makes what counts the episodes for the ``_stats.json``.
        overwrite: delete what the folder holds, and start.

    Raises:
        ConfigError: the folder holds something else, or the port is taken.
    """
    if not overwrite:
        _check_same(config)
    folder = RunFolder.open(config.output_dir, config=dump_config(config), resume=not overwrite, overwrite=overwrite)
    try:
        result = _record(config, folder, on_ready, statistics)
    except BaseException as error:
        folder.fail(error)
        raise
    folder.close("finished")
    return result


def _check_same(config: GatewayConfig) -> None:
    """Refuse to go on with what is no recording: a collection's folder, or a training's, would lose its config."""
    path = Path(config.output_dir) / "config.yaml"
    if not path.is_file():
        return
    try:
        config_from_dict(GatewayConfig, read_document(path).value)
    except ConfigError as error:
        raise ConfigError(f"{config.output_dir}: holds no recording; name another output_dir") from error


def _record(
    config: GatewayConfig,
    folder: RunFolder,
    on_ready: Callable[[str], None],
    statistics: Callable[[], Statistics] | None,
) -> RecordResult:
    path = episodes_path(folder, config.output_format)
    reopen(folder.path, path.name.partition(".")[0])
    journal = Journal(folder.path / JOURNAL)
    try:
        gateway = Gateway(config, journal)
        with contextlib.suppress(KeyboardInterrupt):  # how a recording ends
            run_interruptibly(serve(gateway, on_ready))
        if gateway.names:
            _finish(config, journal, list(gateway.names), path, statistics)
    finally:
        journal.close()
    (folder.path / JOURNAL).unlink()
    there = path if gateway.names else None
    return RecordResult(there, len(gateway.names), gateway.num_calls, gateway.num_failed)


def _finish(
    config: GatewayConfig,
    journal: Journal,
    names: list[str],
    path: Path,
    statistics: Callable[[], Statistics] | None,
) -> None:
    counted = write_collected(path, map(journal.episode, names), statistics)
    successes = [journal.success(name) for name in names]
    report = {
        "environment": config.environment,
        "split": config.split,
        "num_episodes": len(names),
        "num_successes": successes.count(True),
        "num_success_known": len(names) - successes.count(None),
    }
    write_stats(path, report | counted)
