"""Which format a source has, judged from its first rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy import registry
from understudy.errors import FormatError
from understudy.types.fields import kind

from .base import Format, get_format
from .rows import Row

NUM_SNIFFED_ROWS = 16


@dataclass(frozen=True, slots=True)
class Detection:
    """The format found, and why, in a sentence."""

    format: Format
    reason: str


def detect(rows: Sequence[Row]) -> Detection:
    """Return the one format that all the rows look like.

    Raises:
        FormatError: none fits, or several do.
    """
    if not rows:
        raise FormatError("there is no row to tell the format by", mend="name the format")
    candidates: dict[str, tuple[Format, str]] = {}
    for name in registry.names("formats"):
        found = get_format(name)
        reasons = [found.match(row.value) if isinstance(row.value, Mapping) else None for row in rows]
        if all(reasons):
            candidates[name] = (found, str(reasons[0]))
    if len(candidates) == 1:
        ((name, (found, reason)),) = candidates.items()
        return Detection(found, f"{name}: {reason} in the first {_rows(len(rows))}")
    if candidates:
        listed = "; ".join(f"{name} ({reason})" for name, (_, reason) in candidates.items())
        raise FormatError(f"the rows fit several formats: {listed}", file=rows[0].file, mend="name the format")
    value = rows[0].value
    shown = f"an object with {_keys(value)}" if isinstance(value, Mapping) else kind(value)
    known = ", ".join(registry.names("formats"))
    mend = f"name one of the formats {known}, or declare a field mapping"
    raise FormatError(f"no known format fits: the row is {shown}", file=rows[0].file, row=rows[0].number, mend=mend)


def _keys(value: Mapping[str, object], most: int = 8) -> str:
    names = [repr(key) for key in list(value)[:most]] + (["…"] if len(value) > most else [])
    return ", ".join(names) or "no keys"


def _rows(count: int) -> str:
    return "row" if count == 1 else f"{count} rows"
