"""A mapping as a format: what ``--format`` takes when it names a YAML file or a Python function.

``examples/mappings/mint.yaml`` and ``my_mappings.py:episodes`` (or ``package.module:function``) may carry options
behind a question mark. ``tau_bench.yaml?tools.file=tools.json&tools.path=retail`` overrides keys of the YAML by their
dotted names, ``bfcl.py:episodes?func_docs=docs.json`` gives arguments to the function. Values are YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from understudy.config import load_config
from understudy.config.document import parse_value
from understudy.errors import ConfigError
from understudy.formats.base import Format
from understudy.types import JSON, Episode

from .generator import GeneratedRows
from .reader import MappedRows
from .spec import FieldMapping

_YAML = (".yaml", ".yml")


def names_mapping(name: str) -> bool:
    """Say whether the name alone tells that a format is a mapping: a YAML file, a Python file, or options."""
    place, question_mark, _ = name.partition("?")
    return place.lower().endswith(_YAML) or ".py:" in place or bool(question_mark)


def open_mapping(name: str) -> Format:
    """Return the format of a YAML file or a Python function, with its options.

    Raises:
        ConfigError: the file or the function is not there, is not written as it must be, or does not know an option.
    """
    place, _, query = name.partition("?")
    options = [option for option in query.split("&") if option]
    if place.lower().endswith(_YAML):
        return DeclaredFormat(Path(place), options)
    if ":" not in place:
        raise ConfigError(f"{name!r} is no mapping: name a YAML file, file.py:function or package.module:function")
    return GeneratedFormat(place, _arguments(place, options))


class DeclaredFormat(Format):
    """A mapping declared in YAML."""

    name = "declared mapping"
    summary = "whatever the mapping's YAML file declares"

    def __init__(self, path: Path, overrides: list[str]) -> None:
        # A file that the user names in an option is relative to where they are, not to the mapping.
        names_file = any(override.startswith(("tools.file=", "tools=")) for override in overrides)
        self._rows = MappedRows(load_config(FieldMapping, path, overrides), Path() if names_file else path.parent)

    def match(self, row: Mapping[str, JSON]) -> str | None:
        return None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        return [self._rows.episode(row, default_id=id)]


class GeneratedFormat(Format):
    """A Python function that yields the records of a row."""

    name = "generated mapping"
    summary = "whatever the mapping's function takes"

    def __init__(self, function: str, options: Mapping[str, JSON]) -> None:
        self._rows = GeneratedRows(function, options)

    def match(self, row: Mapping[str, JSON]) -> str | None:
        return None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        return list(self._rows.episodes(row, default_id=id))


def _arguments(place: str, options: list[str]) -> dict[str, JSON]:
    arguments: dict[str, JSON] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{place}: write an option as name=value, not {option!r}")
        arguments[key] = parse_value(text, source=f"option {key}")
    return arguments
