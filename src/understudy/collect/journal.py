"""The journal: finished episodes, one JSON line each, in the order in which they were finished.

A line is in the file as a whole or it is cut off at its end, so a kill at any moment costs at most the episode being
written. Reading drops a cut last line, and any other line that a power cut has left unreadable: those episodes are
played again. Where an id stands twice, the later line holds.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from understudy.formats.native import Native
from understudy.formats.rows import dump_row
from understudy.runs import Progress
from understudy.types import Episode

from .rollout import Play

Fsync = Literal["always", "interval", "never"]

FSYNC_SECONDS = 1.0

log = logging.getLogger("understudy.collect")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an episode's line is. `is_faulty` episodes are played again."""

    offset: int
    length: int
    is_faulty: bool
    success: bool | None


class Journal:
    """An open journal.

    Args:
        path: the file; made when it is not there.
        fsync: when lines are forced onto the disk.

    Attributes:
        num_added: episodes that were written since it was opened.

    Raises:
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, *, fsync: Fsync = "interval") -> None:
        self.path = path
        self.num_added = 0
        self._fsync = fsync
        self._entries: dict[str, _Entry] = {}
        self._native = Native()
        self._file = path.open("a+b", buffering=0)
        self._end = self._read()
        self._file.truncate(self._end)
        self._synced_at = time.monotonic()

    def __contains__(self, id: str) -> bool:
        """Say whether an episode is there and was not ended by a fault."""
        entry = self._entries.get(id)
        return entry is not None and not entry.is_faulty

    @property
    def ids(self) -> list[str]:
        """The ids of all episodes that are there, in the order in which they first came."""
        return list(self._entries)

    def success(self, id: str) -> bool | None:
        """Return the success of an episode that is there."""
        return self._entries[id].success

    def append(self, episode: Episode) -> None:
        """Write an episode. When this returns, a kill of the process does not lose it.

        Raises:
            FormatError: it cannot be written as JSON.
            OSError: the disk is full. The journal is then as it was.
        """
        line = dump_row(self._native.write_row(episode)) + b"\n"
        view = memoryview(line)
        try:
            while len(view):
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._entries[episode.id] = _Entry(self._end, len(line), episode.error is not None, episode.success)
        self._end += len(line)
        self.num_added += 1
        if self._fsync == "always" or (self._fsync == "interval" and self._is_due()):
            self._sync()

    async def play(
        self, plays: Iterable[Play], play: Callable[[Iterable[Play]], Awaitable[None]], progress: Progress
    ) -> None:
        """Play what is missing: all of it, because nobody else writes here."""
        await play(plays)

    def episode(self, id: str) -> Episode:
        """Return an episode that is there, also one that a fault ended.

        Raises:
            KeyError: it is not there.
        """
        entry = self._entries[id]
        line = os.pread(self._file.fileno(), entry.length, entry.offset)
        return self._native.decode(json.loads(line), id=id)[0]

    def close(self) -> None:
        """Force what was written onto the disk, unless told never to, and close the file."""
        if self._fsync != "never":
            self._sync()
        self._file.close()

    def _is_due(self) -> bool:
        return time.monotonic() - self._synced_at >= FSYNC_SECONDS

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def _read(self) -> int:
        """Take in the lines that are there; return where the last whole line ends."""
        end, num_unreadable = 0, 0
        for offset, line in self._lines():
            if not line.endswith(b"\n"):
                break
            end = offset + len(line)
            entry = _entry(offset, line)
            if entry is None:
                num_unreadable += 1
            else:
                self._entries[entry[0]] = entry[1]
        if num_unreadable:
            log.warning("%s: %d lines cannot be read; their episodes are played again", self.path, num_unreadable)
        return end

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                yield offset, line
                offset += len(line)


def _entry(offset: int, line: bytes) -> tuple[str, _Entry] | None:
    try:
        row = json.loads(line)
        return row["id"], _Entry(offset, len(line), row.get("error") is not None, row.get("success"))
    except (ValueError, KeyError, TypeError):
        return None
