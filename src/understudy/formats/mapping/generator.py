"""Python generators of records: for sources that are too irregular for a declared mapping.

A generator is a function that takes one row and yields records. A record is an `Episode`, or a dict with OpenAI-style
``messages`` and, under a mapping's own names, ``tools``, ``id``, ``environment``, ``reward`` and the rest; ``metadata``
becomes the episode's. ``messages`` may also be a list of conversations, one for each call of the policy, and an
assistant message may carry ``weight``, ``reward`` and ``sampled`` (``prompt_ids``, ``output_ids``, ``logprobs``).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from understudy.errors import ConfigError, FormatError, UnderstudyError, did_you_mean
from understudy.types import JSON, Episode
from understudy.types.fields import kind

from .reader import MappedRows
from .spec import FieldMapping, Messages, Sampled, Source

_EPISODE_FIELDS = (
    *("id", "environment", "task", "seed", "split", "agent", "policy"),
    *("reward", "success", "stop_reason", "error", "created_at"),
)
RECORD = FieldMapping(
    messages=Source(path="messages", optional=True),
    message=Messages(
        reward="reward",
        sampled=Sampled(prompt_ids="sampled.prompt_ids", output_ids="sampled.output_ids", logprobs="sampled.logprobs"),
    ),
    tools="tools",
    **{name: name for name in _EPISODE_FIELDS},
)
"""What a dict that a generator yields may hold."""

_RECORD_KEYS = ("messages", "tools", "metadata", *_EPISODE_FIELDS)


class GeneratedRows:
    """Reads rows through a user's function.

    Args:
        name: ``package.module:function`` or ``path/to/file.py:function``.
        options: keyword arguments of the function.

    Raises:
        ConfigError: the function cannot be imported, or does not take the options.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._function = _load(name)
        self._options = dict(options)
        self._records = MappedRows(RECORD, Path())
        _check_options(self._function, name, self._options)

    def episodes(self, row: JSON, *, default_id: str) -> Iterator[Episode]:
        """Yield the episodes of one row.

        Args:
            default_id: names an episode without an id; further ones of a row append ``/1``, ``/2``, …

        Raises:
            FormatError: the function failed on the row, or yielded what is no record.
        """
        for number, record in enumerate(self._yielded(row)):
            if isinstance(record, Episode):
                yield record
                continue
            place = f"record {number + 1} of {self._name}"
            if not isinstance(record, Mapping):
                raise FormatError(f"{place} is {kind(record)}", mend="yield an Episode or a dict with messages")
            unknown = next((key for key in record if key not in _RECORD_KEYS), None)
            if unknown is not None:
                near = did_you_mean(str(unknown), _RECORD_KEYS)
                raise FormatError(f"{place} has the unknown key {unknown!r}.{near}", mend="put it into metadata")
            try:
                yield self._episode(record, default_id if number == 0 else f"{default_id}/{number}")
            except FormatError as error:
                raise FormatError(f"{place}: {error.reason}", field=error.field, mend=error.mend) from None

    def _episode(self, record: Mapping[str, JSON], default_id: str) -> Episode:
        if record.get("messages") is None:
            raise FormatError(
                "the messages are missing", field="messages", mend="give a list; an empty one has no turns"
            )
        metadata = record.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise FormatError(f"metadata is an object, not {kind(metadata)}", field="metadata")
        given = {key: value for key, value in record.items() if key != "metadata" and value is not None}
        return self._records.episode(given, default_id=default_id, metadata=metadata or {})

    def _yielded(self, row: JSON) -> Iterator[Any]:
        """Run the user's function. Whatever goes wrong in it is said of the row, so that other rows can go on."""
        try:
            result = self._function(row, **self._options)
            if not isinstance(result, Iterable):
                raise ConfigError(f"{self._name} returned {type(result).__name__}; write it with yield")
            yield from result
        except UnderstudyError:
            raise
        except Exception as error:
            own_file = inspect.unwrap(self._function).__code__.co_filename
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own_file]
            place = f" in line {lines[-1]}" if lines else ""
            reason = f"{self._name} failed{place} with {type(error).__name__}: {error}"
            raise FormatError(reason, mend="mend the function, or the row") from error


def _load(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.rpartition(":")
    try:
        module = _from_file(Path(module_name)) if module_name.endswith(".py") else importlib.import_module(module_name)
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file") from None
    except Exception as error:
        raise ConfigError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not inspect.isfunction(function):
        functions = inspect.getmembers(
            module, lambda value: inspect.isfunction(value) and value.__module__ == module.__name__
        )
        known = [key for key, _ in functions if key[0] != "_"]
        near = did_you_mean(attribute, known)
        raise ConfigError(f"{module_name} has no function {attribute!r}.{near} Known: {', '.join(known)}")
    return function


def _from_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it hides no package of the same name."""
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(f"understudy_mapping_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_options(function: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {parameter.name: parameter for parameter in parameters[1:]}
    for option in options:
        if option not in known:
            takes = f"Known: {', '.join(known)}" if known else "It has no options"
            raise ConfigError(f"{name} has no option {option!r}.{did_you_mean(option, known)} {takes}")
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise ConfigError(f"{name} needs {missing[0]}: write {name}?{missing[0]}=…")
