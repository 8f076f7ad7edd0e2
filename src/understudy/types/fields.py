"""How values and places of a row are named in errors, and the few checks that every reader shares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from understudy.errors import FormatError

from .message import JSON


def kind(value: object) -> str:
    """Name the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__


def join(field: str, name: str) -> str:
    """Return the dotted path of `name` within `field`."""
    return f"{field}.{name}" if field else name


def parse_json(text: str, field: str, what: str) -> JSON:
    """Parse JSON text that stands within a row.

    Raises:
        FormatError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"{what} as text that is not JSON: {reason}", field=field) from None


def optional_text(value: JSON, field: str) -> str | None:
    """Return text or None as it is; refuse anything else."""
    if value is not None and not isinstance(value, str):
        raise FormatError(f"expected text, not {kind(value)}", field=field)
    return value


def is_finite_number(value: JSON) -> bool:
    """Say whether a value is a number, true or false that a finite float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False
