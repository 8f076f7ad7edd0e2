"""Values found in a row, as `Value` declares them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.errors import FormatError, did_you_mean
from understudy.types import JSON
from understudy.types.fields import is_finite_number, kind, parse_json

from .paths import MISSING, Path, compile_path
from .spec import BRACES, Value, ValueSpec


@dataclass(frozen=True, slots=True)
class Getter:
    """A compiled `Value`. Calling it returns what it finds in a row; None when there is nothing.

    The paths whose values the result holds are added to `used`, so that they need not be kept a second time. What is
    only looked at (matched, looked up, put into a text) is not added, because the result does not hold it.
    """

    spec: Value
    paths: tuple[Path, ...]
    pattern: re.Pattern[str] | None
    table: Table | None

    def __call__(self, row: dict[str, JSON], used: list[Path]) -> JSON:
        if self.spec.text is not None:
            return self._filled_in(row, self.spec.text)
        if not self.paths:
            return self.spec.value
        path, value = first_found(self.paths, row)
        if path is None:
            return self.spec.default
        if self.pattern is None and self.table is None:
            used.append(path)
        if value is None and (self.table is None or "null" not in self.table.texts):
            return self.spec.default
        if self.spec.parse and isinstance(value, str):
            value = parse_json(value, path.text, "a value")
        if self.spec.join is not None:
            value = _joined(value, self.spec.join, path)
        if self.pattern is not None:
            value = _matched(value, self.pattern, path)
        return value if self.table is None else self.table(value, path)

    def _filled_in(self, row: dict[str, JSON], text: str) -> str:
        def found(match: re.Match[str]) -> str:
            value = compile_path(match[1]).find(row)
            if isinstance(value, str | int | float):
                return str(value)
            reason = "is not there" if value is MISSING else f"is {kind(value)}"
            raise FormatError(f"the text {text!r} needs a text or a number here, but it {reason}", field=match[1])

        return BRACES.sub(found, text)


class Table:
    """The `values` of a `Value`: keys are text, as YAML writes them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.texts = values
        self.numbers = {float(key): value for key, value in values.items() if _is_number(key)}

    def __call__(self, value: JSON, path: Path) -> JSON:
        words = {True: "true", False: "false", None: "null"}
        key = words[value] if value is None or isinstance(value, bool) else value
        if isinstance(key, str) and key in self.texts:
            return self.texts[key]
        if not isinstance(key, str) and is_finite_number(key) and float(key) in self.numbers:
            return self.numbers[float(key)]
        near = did_you_mean(str(key), self.texts)
        raise FormatError(
            f"{value!r} is not among the mapping's values.{near}", field=path.text, mend="add it under values"
        )


def compile_value(spec: ValueSpec) -> Getter:
    """Compile a `ValueSpec`."""
    if not isinstance(spec, Value):
        spec = Value(path=spec)
    pattern = re.compile(spec.match) if spec.match is not None else None
    table = Table(spec.values) if spec.values is not None else None
    return Getter(spec, compile_paths(spec.path), pattern, table)


def compile_paths(paths: str | Sequence[str] | None) -> tuple[Path, ...]:
    """Compile one path or several."""
    return tuple(compile_path(text) for text in ((paths,) if isinstance(paths, str) else paths or ()))


def first_found(paths: Sequence[Path], row: dict[str, JSON]) -> tuple[Path | None, JSON]:
    """Return the first path that holds something, with its value; else the first that is there; else (None, None).

    Null, empty text, an empty list and an empty object hold nothing.
    """
    empty: tuple[Path | None, JSON] = (None, None)
    for path in paths:
        value = path.find(row)
        if value is MISSING:
            continue
        if value is not None and value != "" and value != [] and value != {}:
            return path, value
        if empty[0] is None:
            empty = (path, value)
    return empty


def number(value: JSON, field: str) -> float | None:
    """Return a number as float (true and false as 1 and 0); None stays None.

    Raises:
        FormatError: it is something else, or not finite.
    """
    if value is None:
        return None
    if not is_finite_number(value):
        raise FormatError(f"expected a number, not {kind(value)} ({value!r})", field=field)
    return float(value)


def checked(wanted: type[Any], what: str) -> Callable[[JSON, str], Any]:
    """Return a check that a value is None or of the type `wanted`, which errors call `what`."""

    def check(value: JSON, field: str) -> Any:
        if value is None or (isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))):
            return value
        mend = "turn the source's words into true and false with values" if wanted is bool else None
        raise FormatError(f"expected {what}, not {kind(value)} ({value!r})", field=field, mend=mend)

    return check


def _joined(value: JSON, separator: str, path: Path) -> JSON:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError("join needs a list of texts", field=path.text)
    return separator.join(value)


def _matched(value: JSON, pattern: re.Pattern[str], path: Path) -> str:
    match = pattern.search(value) if isinstance(value, str) else None
    if match is None:
        raise FormatError(f"{value!r} does not match {pattern.pattern!r}", field=path.text)
    return str(match[1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
