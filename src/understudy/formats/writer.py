"""Rows into files, whole or not at all.

Rows go to a temporary file beside the target, which takes the target's name when everything is written. The kinds are
those of `files`, but ``.eval``: it belongs to inspect_ai.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from understudy.errors import FormatError, did_you_mean
from understudy.types.message import JSON

from .files import DATA_SUFFIXES
from .json_stream import read_lines
from .rows import BadRow, dump_row

WRITABLE_SUFFIXES = tuple(suffix for suffix in DATA_SUFFIXES if suffix != ".eval")
_ZSTD_LEVEL = 10


def write_rows(target: str | Path, rows: Iterable[Mapping[str, JSON]], *, envelope: str | None = None) -> int:
    """Write rows and return how many; ``-`` writes JSON lines to standard output.

    Args:
        envelope: a ``.json`` file becomes one object instead of an array: under this key the items of all rows' lists,
            and the sums of the rows' numbers under theirs.

    Raises:
        FormatError: the target's kind is unknown, its folder is missing, or a row is not JSON.
    """
    name = os.fspath(target)
    if name == "-":
        return _write_lines(sys.stdout.buffer, rows)
    check_target(name)
    if name.lower().endswith(".parquet"):
        return _write_parquet(name, rows)
    with _replacing(name) as temporary, _compressing(temporary, name) as stream:
        is_array = name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json")
        if not is_array:
            return _write_lines(stream, rows)
        return _write_array(stream, rows) if envelope is None else _write_envelope(stream, rows, envelope)


def check_target(name: str) -> None:
    """Refuse a target that cannot be written, before any row is read.

    Raises:
        FormatError: the kind is unknown, or the folder is missing.
    """
    if name == "-":
        return
    if not name.lower().endswith(WRITABLE_SUFFIXES):
        suffix = "".join(Path(name).suffixes[-2:]) or name
        reason = f"cannot write the kind {suffix!r}.{did_you_mean(suffix, WRITABLE_SUFFIXES)}"
        raise FormatError(reason, file=name, mend=f"name it one of {', '.join(WRITABLE_SUFFIXES)}")
    if not Path(name).absolute().parent.is_dir():
        raise FormatError("the folder does not exist", file=name, mend="make it first")


@contextmanager
def _replacing(name: str) -> Iterator[str]:
    """Give the name of a temporary file; it takes the target's place when the block ends well, and goes otherwise."""
    path = Path(name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _clear_leftovers(path)
    try:
        yield os.fspath(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise FormatError(f"cannot write the file: {error.strerror or error}", file=name) from error
    finally:
        temporary.unlink(missing_ok=True)


def _clear_leftovers(path: Path) -> None:
    """Delete the temporary files of a target whose writers were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d{{0,8}})\.tmp(\.jsonl)?")
    with suppress(OSError):  # a folder that cannot be listed, or a file that another process has deleted
        for entry in os.scandir(path.parent):
            found = pattern.fullmatch(entry.name)
            if found is not None and not _is_alive(int(found[1])):
                os.unlink(entry)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def _compressing(temporary: str, name: str) -> Iterator[BinaryIO]:
    packed = Path(name).suffix.lower()
    with open(temporary, "wb") as file:
        if packed == ".gz":
            # No name and no time in the header: equal rows make equal files.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
                yield stream  # type: ignore[misc]
        elif packed == ".zst":
            import zstandard

            with zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(file, closefd=False) as stream:
                yield stream
        else:
            yield file


def _write_lines(stream: BinaryIO, rows: Iterable[Mapping[str, JSON]]) -> int:
    count = 0
    for row in rows:
        stream.write(dump_row(row) + b"\n")
        count += 1
    return count


def _write_array(stream: BinaryIO, rows: Iterable[Mapping[str, JSON]]) -> int:
    count = 0
    for row in rows:
        stream.write((b",\n" if count else b"[\n") + dump_row(row))
        count += 1
    stream.write(b"\n]\n" if count else b"[]\n")
    return count


def _write_envelope(stream: BinaryIO, rows: Iterable[Mapping[str, JSON]], envelope: str) -> int:
    stream.write(b"{" + dump_row(envelope) + b": [\n")
    totals: Counter[str] = Counter()
    count = num_items = 0
    for row in rows:
        for item in row[envelope]:
            stream.write((b",\n" if num_items else b"") + dump_row(item))
            num_items += 1
        totals.update({key: value for key, value in row.items() if key != envelope})
        count += 1
    stream.write(b"\n]" + b"".join(b",\n" + dump_row(key) + b": " + dump_row(totals[key]) for key in totals) + b"}\n")
    return count


def _write_parquet(name: str, rows: Iterable[Mapping[str, JSON]]) -> int:
    """Write Parquet by way of a temporary file of JSON lines, because the columns' types need a pass of their own."""
    from .parquet import write_parquet

    with _replacing(name) as temporary:
        spooled = Path(f"{temporary}.jsonl")
        try:
            with spooled.open("wb") as stream:
                count = _write_lines(stream, rows)

            def read() -> Iterator[dict[str, JSON]]:
                with spooled.open("rb") as lines:
                    for row in read_lines(lines, name, sys.maxsize - 1):
                        if isinstance(row, BadRow):
                            raise row.error
                        yield row.value

            write_parquet(temporary, read)
        finally:
            spooled.unlink(missing_ok=True)
    return count
