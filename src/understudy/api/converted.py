"""Records of any kind, through a user's own function: AgentRL's `convert_record_to_data_func`.

The function is given one record (a row of a file, or what a data set yields) and the config of the run, and yields what
is trained on. It may be asynchronous: one event loop runs all of it, so it may hold a connection open.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

from understudy.errors import FormatError, UnderstudyError
from understudy.formats import Format
from understudy.formats.record_data import RecordData
from understudy.train.config import TrainConfig
from understudy.types import JSON, Episode

ConvertRecord = Callable[[Any, TrainConfig], AsyncIterable[Any] | Iterable[Any]]
"""From a record and the run's config to `RecordData` (objects or mappings with its keys) or episodes."""


class ConvertedRecords(Format):
    """Decodes whatever the function takes.

    Args:
        function: is called once for each record.
        args: the config that it is given.
    """

    name: ClassVar[str] = "converted records"
    summary: ClassVar[str] = "whatever the function takes"

    def __init__(self, function: ConvertRecord, args: TrainConfig) -> None:
        self._function = function
        self._args = args
        self._name = getattr(function, "__name__", type(function).__name__)
        self._record_data = RecordData()
        self._loop: asyncio.AbstractEventLoop | None = None

    def match(self, row: Mapping[str, JSON]) -> str | None:
        return None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        return self.decode(row, id=id)

    def decode(self, row: Any, *, id: str) -> list[Episode]:
        """See `Format.decode`; a record may be any object."""
        episodes: list[Episode] = []
        for number, made in enumerate(self._yielded(row)):
            if isinstance(made, Episode):
                episodes.append(made)
                continue
            place = f"record {number + 1} of {self._name}"
            found = as_row(made)
            if found is None:
                mend = "yield RecordData, a mapping with its keys, or an Episode"
                raise FormatError(f"{place} is {type(made).__name__}", mend=mend)
            try:
                episodes += self._record_data.decode(found, id=f"{id}/{number}" if number else id)
            except FormatError as error:
                raise FormatError(f"{place}: {error.reason}", field=error.field, mend=error.mend) from None
        return episodes

    def _yielded(self, record: Any) -> list[Any]:
        """Run the function. Whatever goes wrong in it is said of the record, so that others can go on."""
        try:
            made = self._function(record, self._args)
            if isinstance(made, AsyncIterable):
                return self._gathered(made)
            if isinstance(made, Iterable) and not isinstance(made, str | bytes | Mapping):
                return list(made)
        except UnderstudyError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            reason = f"{self._name} failed at {place} with {type(error).__name__}: {error}"
            raise FormatError(reason, mend="mend the function, or the record") from error
        if inspect.iscoroutine(made):
            made.close()
        raise FormatError(f"{self._name} returned {type(made).__name__}", mend="write it with yield")

    def _gathered(self, made: AsyncIterable[Any]) -> list[Any]:
        """Wait for all of it, in a thread of its own: where a notebook calls, that one's loop is running."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(self._loop,), name="convert_record", daemon=True).start()
            weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        return asyncio.run_coroutine_threadsafe(_listed(made), self._loop).result()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _listed(made: AsyncIterable[Any]) -> list[Any]:
    return [one async for one in made]


def as_row(item: Any) -> dict[str, Any] | None:
    """Return a row from a mapping, a pydantic model, a dataclass, or an object with ``messages``; None for others."""
    if isinstance(item, Mapping):
        return dict(item)
    if hasattr(item, "model_dump"):
        return dict(item.model_dump(mode="json"))
    if is_dataclass(item) and not isinstance(item, type):
        return asdict(item)
    if hasattr(item, "messages") and hasattr(item, "__dict__"):
        return {key: value for key, value in vars(item).items() if not key.startswith("_")}
    return None
