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
    """Return the one format that the rows look like.

    A row that looks like no format at all is a bad row: it is left to the decoder, which says what is wrong with it.

    Raises:
        FormatError: none fits, or several do.
    """
    if not rows:
        raise FormatError("there is no row to tell the format by", mend="name the format")
    formats = {name: get_format(name) for name in registry.names("formats")}
    fits = [_fitting(row, formats) for row in rows]
    fits = [fit for fit in fits if fit]
    candidates = {name: fits[0][name] for name in formats if fits and all(name in fit for fit in fits)}
    if len(candidates) == 1:
        ((name, reason),) = candidates.items()
        seen = _rows(len(rows)) if len(fits) == len(rows) else f"{len(rows)} rows but {len(rows) - len(fits)}"
        return Detection(formats[name], f"{name}: {reason} in the first {seen}")
    if candidates:
        listed = "; ".join(f"{name} ({reason})" for name, reason in candidates.items())
        raise FormatError(f"the rows fit several formats: {listed}", file=rows[0].file, mend="name the format")
    if fits:
        listed = ", ".join(sorted({name for fit in fits for name in fit}))
        raise FormatError(f"the rows are of several formats: {listed}", file=rows[0].file, mend="split the source")
    value = rows[0].value
    shown = f"an object with {_keys(value)}" if isinstance(value, Mapping) else kind(value)
    known = ", ".join(registry.names("formats"))
    mend = f"name one of the formats {known}, or declare a field mapping"
    raise FormatError(f"no known format fits: the row is {shown}", file=rows[0].file, row=rows[0].number, mend=mend)


def _fitting(row: Row, formats: Mapping[str, Format]) -> dict[str, str]:
    """Return the formats that a row looks like, and why."""
    if not isinstance(row.value, Mapping):
        return {}
    reasons = {name: found.match(row.value) for name, found in formats.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _keys(value: Mapping[str, object], most: int = 8) -> str:
    names = [repr(key) for key in list(value)[:most]] + (["…"] if len(value) > most else [])
    return ", ".join(names) or "no keys"


def _rows(count: int) -> str:
    return "row" if count == 1 else f"{count} rows"
