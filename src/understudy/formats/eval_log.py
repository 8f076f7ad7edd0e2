"""Logs of inspect_ai (``.eval``): a zip whose ``samples/*.json`` are the rows."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator

from understudy.errors import FormatError
from understudy.types.message import JSON

from .rows import BadRow, Row, parse_row

# All that zipfile raises for a broken archive. RuntimeError: encrypted; NotImplementedError: unknown compression.
_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError)


def read_eval_log(file: str, max_row_bytes: int) -> Iterator[Row | BadRow]:
    """Read the samples in the order of their names, each with the log's ``header`` added.

    Raises:
        FormatError: it is no zip.
        OSError: the file cannot be opened.
    """
    with open(file, "rb") as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except _FAULTS as error:
            raise _broken(error) from error
        names = archive.namelist()
        header = _read(archive, "header.json", max_row_bytes) if "header.json" in names else None
        samples = sorted(name for name in names if name.startswith("samples/") and name.endswith(".json"))
        for number, name in enumerate(samples, start=1):
            try:
                sample = _read(archive, name, max_row_bytes)
                if not isinstance(sample, dict):
                    raise FormatError("a sample is an object")
            except FormatError as error:
                yield BadRow(error.at(file=file, row=number, field=name), b"")
            else:
                yield Row({**sample, "header": header}, file, number)


def _read(archive: zipfile.ZipFile, name: str, max_row_bytes: int) -> JSON:
    try:
        with archive.open(name) as member:
            data = member.read(max_row_bytes + 1)
    except _FAULTS as error:
        raise _broken(error) from error
    if len(data) > max_row_bytes:
        raise FormatError(f"longer than max_row_bytes ({max_row_bytes:,})", field=name, mend="raise max_row_bytes")
    return parse_row(data)


def _broken(error: Exception) -> FormatError:
    return FormatError(f"the zip is broken: {error}", mend="fetch or write the file again")
