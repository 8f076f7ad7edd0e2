"""Rows from files: which files a source names, how they are opened, and what each kind holds.

A source is a file, a folder, a glob, ``-`` for standard input, or a list of these. Kinds: ``.json`` (an array, one
object, or several), ``.jsonl`` and ``.ndjson``, each also as ``.gz`` or ``.zst``; ``.parquet``; ``.eval`` (inspect_ai).
A file with another name is read as JSON. Whatever the kind, memory holds one row and not the file.
"""

from __future__ import annotations

import glob
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from understudy.errors import FormatError

from .json_stream import Replayed, Stream, read_lines, read_values, sniff
from .position import ReadPosition
from .rows import DEFAULT_MAX_ROW_BYTES, BadRow, Row

Source = str | Path | Sequence[str | Path]
"""A file, a folder, a glob, ``-``, or a list of these."""

STDIN = "<stdin>"
_JSON_LINES = (".jsonl", ".ndjson")
DATA_SUFFIXES = (
    *(kind + packed for kind in (".json", *_JSON_LINES) for packed in ("", ".gz", ".zst")),
    ".parquet",
    ".eval",
)
# Files that stand beside data in a folder and are none.
_BESIDE_DATA = ("_stats.json", ".rejects.jsonl", "dataset_info.json", "provenance.json", "metrics.jsonl")
_BUFFER_BYTES = 1024 * 1024
_SQLITE = b"SQLite format 3\0"


def read_rows(
    source: Source,
    *,
    max_row_bytes: int = DEFAULT_MAX_ROW_BYTES,
    on_bad: Callable[[BadRow], None] | None = None,
    position: ReadPosition | None = None,
) -> Iterator[Row]:
    """Read the rows of a source, file by file in a sorted order.

    Args:
        max_row_bytes: a row that is longer is a bad row.
        on_bad: is called with every row that cannot be read; by default the first one raises.
        position: of the same source's files; is kept up to date.

    Raises:
        FormatError: nothing is there, or a row cannot be read and `on_bad` is not given.
    """
    with closing(read_rows_and_faults(source, max_row_bytes=max_row_bytes, position=position)) as rows:
        for row in rows:
            if isinstance(row, Row):
                yield row
            elif on_bad is None:
                raise row.error
            else:
                on_bad(row)


def read_rows_and_faults(
    source: Source, *, max_row_bytes: int = DEFAULT_MAX_ROW_BYTES, position: ReadPosition | None = None
) -> Generator[Row | BadRow, None, None]:
    """Read as `read_rows` does, and yield what cannot be read where it stands.

    Raises:
        FormatError: nothing is there, or a file cannot be opened.
    """
    files = list_files(source)
    position = position or ReadPosition(files)
    for file in files:
        position.begin_file()
        yield from _read_file(file, max_row_bytes, position)


def list_files(source: Source) -> list[str]:
    """Return the files that a source names, as the user would name them; standard input is ``-``.

    A folder gives all data files below it, but none that is hidden, begins with ``_`` or stands beside data
    (``*_stats.json``, ``*.rejects.jsonl``, ``dataset_info.json``, a run's ``provenance.json`` and ``metrics.jsonl``).

    Raises:
        FormatError: a name leads to no file.
    """
    if not isinstance(source, str | Path):
        return [file for one in source for file in list_files(one)]
    name = os.fspath(source)
    if name == "-" or os.path.isfile(name):
        return [name]
    if os.path.isdir(name):
        files = [file for file in sorted(Path(name).rglob("*")) if _is_data(file.relative_to(name)) and file.is_file()]
        if not files:
            mend = f"known kinds: {', '.join(DATA_SUFFIXES)}"
            raise FormatError("the folder holds no data files", file=name, mend=mend)
        return [os.fspath(file) for file in files]
    if os.path.exists(name):
        return [name]
    found = sorted(filter(os.path.isfile, glob.glob(name, recursive=True))) if glob.has_magic(name) else []
    if not found:
        raise FormatError("no such file, folder or pattern", file=name)
    return found


def _is_data(file: Path) -> bool:
    if any(part.startswith((".", "_")) for part in file.parts) or file.name.endswith(_BESIDE_DATA):
        return False
    return file.name.lower().endswith(DATA_SUFFIXES)


def _read_file(file: str, max_row_bytes: int, position: ReadPosition) -> Iterator[Row | BadRow]:
    """Read one file. Where its data is broken, a last `BadRow` follows the rows that could be read."""
    name = STDIN if file == "-" else file
    number = 0
    try:
        for row in _open_rows(file, name, max_row_bytes, position):
            number = row.number if isinstance(row, Row) else row.error.row or number
            yield row
    except FormatError as error:
        yield BadRow(error.at(file=name, row=number + 1), b"")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        mend = "the file may be incomplete: fetch or write it again"
        yield BadRow(FormatError(f"the compressed data is broken: {error}", file=name, row=number + 1, mend=mend), b"")
    except OSError as error:
        raise FormatError(f"cannot read the file: {error.strerror or error}", file=name) from error


def _open_rows(file: str, name: str, max_row_bytes: int, position: ReadPosition) -> Iterator[Row | BadRow]:
    lower = file.lower()
    if lower.endswith(".parquet"):
        from .parquet import read_parquet

        yield from read_parquet(file, position)
    elif lower.endswith(".eval"):
        from .eval_log import read_eval_log

        yield from read_eval_log(file, max_row_bytes)
    else:
        with closing(_open_binary(file, position)) as stream:
            if lower.removesuffix(".gz").removesuffix(".zst").endswith(_JSON_LINES):
                yield from read_lines(stream, name, max_row_bytes)
            else:
                replayed, is_lines = sniff(stream)
                yield from (read_lines if is_lines else read_values)(replayed, name, max_row_bytes)


def _open_binary(file: str, position: ReadPosition) -> Stream:
    """Open a file or standard input, decompressed. Standard input may be compressed too: its first bytes tell."""
    stdin: Stream = sys.stdin.buffer  # type: ignore[assignment]
    if file == "-":
        stream = io.BufferedReader(Replayed(stdin), buffer_size=_BUFFER_BYTES)
        magic = stream.peek(4)[:4]
        packed = ".gz" if magic[:2] == b"\x1f\x8b" else ".zst" if magic == b"\x28\xb5\x2f\xfd" else ""
    else:
        stream = io.BufferedReader(io.FileIO(file), buffer_size=_BUFFER_BYTES)  # type: ignore[arg-type]
        position.follow(stream.tell)
        if stream.peek(len(_SQLITE))[: len(_SQLITE)] == _SQLITE:
            stream.close()
            mend = "of a store: understudy store export, or train from it with data.store.path"
            raise FormatError("the file is a database of SQLite, not rows", mend=mend)
        packed = os.path.splitext(file.lower())[1]
    if packed == ".gz":
        return _Gzip(stream)
    if packed == ".zst":
        from .zstd import ZstdReader

        return io.BufferedReader(ZstdReader(stream), buffer_size=_BUFFER_BYTES)
    return stream


class _Gzip(gzip.GzipFile):
    """A gzip stream that closes the stream below it."""

    def __init__(self, stream: io.BufferedReader[Any]) -> None:
        super().__init__(fileobj=stream, mode="rb")
        self._below = stream

    def close(self) -> None:
        super().close()
        self._below.close()
