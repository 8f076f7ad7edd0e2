"""A row, and the one parser of JSON that every reader uses.

The parser is the standard library's, because it keeps integers exact, keeps NaN, and shows every pair of an object,
so that a key that stands twice is refused and not half dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from understudy.errors import FormatError
from understudy.types.message import JSON

DEFAULT_MAX_ROW_BYTES = 256 * 1024 * 1024
"""No single row may be larger; the option `max_row_bytes` raises it."""

# Line separators that are legal inside JSON text, and at which many programs wrongly split lines.
_LINE_SEPARATORS = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        value: the parsed JSON value.
        file: the file as the user named it; ``<stdin>`` for standard input.
        number: 1-based; the line number in JSON lines, else the position in the file.
        raw: the bytes that were parsed, where the reader had them at hand.
    """

    value: JSON
    file: str
    number: int
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, with its error (file and row filled in) and as much of its bytes as is kept."""

    error: FormatError
    raw: bytes


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    """Make an object of its pairs; refuse a key that stands twice."""
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"the key {twice!r} stands twice in one object", mend="keep one of the two")
    return out


DECODER = json.JSONDecoder(object_pairs_hook=_unique, strict=False)


def parse_row(data: bytes) -> JSON:
    """Parse the bytes of one JSON value.

    Raises:
        FormatError: they are not UTF-8 or not JSON, are cut off, nested too deeply, or hold a key twice.
    """
    try:
        return DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FormatError("the text is UTF-16", mend="convert the file to UTF-8") from None
        raise FormatError(f"byte {error.start + 1} of the row is not UTF-8", mend="convert the file to UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise syntax_error(error) from None


def syntax_error(error: ValueError | RecursionError, start: int = 0) -> FormatError:
    """Return, in plain words, the error of a text whose row begins at `start` and that the parser refused."""
    if isinstance(error, RecursionError):
        return FormatError("the row is nested too deeply", mend="flatten it, or give the inner values as JSON text")
    if not isinstance(error, json.JSONDecodeError):
        return FormatError(f"a number cannot be read: {error}")
    if error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip()):
        return FormatError("the row is cut off", mend="the file may be incomplete: fetch or write it again")
    return FormatError(f"not JSON: {error.msg} at character {error.pos - start + 1} of the row")


def dump_row(value: JSON) -> bytes:
    """Return one line of JSON without its line end. Lone surrogates are escaped, so that nothing is lost.

    Raises:
        FormatError: the value is not JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
        for separator, escape in _LINE_SEPARATORS.items():
            if separator in text:
                text = text.replace(separator, escape)
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"the row cannot be written as JSON: {reason}") from None
