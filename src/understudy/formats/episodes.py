"""Episodes from any source and into any target: the two functions that everything else uses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from understudy.errors import FormatError
from understudy.types import JSON, Episode

from .base import Format, get_format
from .dataset_info import load_dataset_info, split_reference
from .detect import NUM_SNIFFED_ROWS, Detection, detect
from .files import Source, read_rows_and_faults
from .files import list_files as list_named_files
from .position import ReadPosition
from .rows import DEFAULT_MAX_ROW_BYTES, BadRow, Row, dump_row
from .writer import check_target, write_rows


class EpisodeReader:
    """The episodes of a source, one pass at a time, with counts of what the last pass met.

    Attributes:
        detection: the format and why it was taken; None until it is known.
        num_rows: rows read so far, bad ones included.
        num_episodes: episodes given out so far.
        num_rejected: bad rows passed over so far.
        reasons: how often each reason for a rejection came up.
        place: ``file:row`` of the episode given out last.
    """

    def __init__(
        self, source: Source, format: str | Format, *, skip_bad: bool, rejects: str | Path | None, max_row_bytes: int
    ) -> None:
        self.detection: Detection | None = None
        self.num_rows = self.num_episodes = self.num_rejected = 0
        self.reasons: Counter[str] = Counter()
        self.place = ""
        self._source = source
        self._skip_bad = skip_bad
        self._rejects = Path(rejects) if rejects is not None else None
        self._max_row_bytes = max_row_bytes
        self._position: ReadPosition | None = None
        reference = split_reference(source)
        if reference is not None:
            self._source, found = load_dataset_info(*reference)
            self.detection = Detection(found, f"{found.name}: as {reference[0]} declares {reference[1]!r}")
        elif format != "auto":
            found = format if isinstance(format, Format) else get_format(format)
            self.detection = Detection(found, f"{found.name}: as named")

    def __iter__(self) -> Iterator[Episode]:
        self.num_rows = self.num_episodes = self.num_rejected = 0
        self.reasons.clear()
        if self._skip_bad and self._rejects is not None:
            self._rejects.unlink(missing_ok=True)
        self._position = ReadPosition(self.files())
        opened = read_rows_and_faults(self._source, max_row_bytes=self._max_row_bytes, position=self._position)
        with closing(opened) as rows:  # at once, also where an error of a row ends it: that holds on to its frames
            head = self._sniff(rows) if self.detection is None else []
            assert self.detection is not None
            for row in itertools.chain(head, rows):
                if isinstance(row, BadRow):
                    self._reject(row)
                    continue
                try:
                    episodes = self.detection.format.decode(row.value, id=f"{row.file}:{row.number}")
                except FormatError as error:
                    self._reject(BadRow(error.at(file=row.file, row=row.number), _raw(row)))
                    continue
                self.num_rows += 1
                self.num_episodes += len(episodes)
                self.place = f"{row.file}:{row.number}"
                yield from episodes

    def _sniff(self, rows: Iterator[Row | BadRow]) -> list[Row | BadRow]:
        """Detect the format by the first rows, and return what was read."""
        head: list[Row | BadRow] = []
        found: list[Row] = []
        for row in rows:
            if isinstance(row, BadRow) and not found:
                self._reject(row)
                continue
            head.append(row)
            if isinstance(row, BadRow):
                break
            found.append(row)
            if len(found) == NUM_SNIFFED_ROWS:
                break
        if not found:
            first, *more = self.files()
            place = f"{first} and {len(more):,} more files" if more else first
            bad = f": none of {self.num_rejected:,} can be read" if self.num_rejected else ""
            mend = "give data that has rows; with the format named, none is no error"
            raise FormatError(f"there is no row to tell the format by{bad}", file=place, mend=mend)
        self.detection = detect(found)
        return head

    def files(self) -> list[str]:
        """Return the files of the source.

        Raises:
            FormatError: there is none.
        """
        return list_named_files(self._source)

    @property
    def fraction(self) -> float | None:
        """The share of the source that has been read, from 0 to 1; None where nobody can know."""
        return self._position.fraction if self._position is not None else None

    def _reject(self, bad: BadRow) -> None:
        """Count a bad row and keep it; where bad rows are not to be skipped, raise its error."""
        if not self._skip_bad:
            raise bad.error
        self.num_rows += 1
        self.num_rejected += 1
        self.reasons[bad.error.reason] += 1
        if self._rejects is None:
            return
        line = {
            "file": bad.error.file,
            "row": bad.error.row,
            "field": bad.error.field,
            "reason": bad.error.reason,
            "mend": bad.error.mend,
            # Bytes that are no UTF-8 become lone surrogates: encode with "surrogateescape" to have them back.
            "raw": bad.raw.decode("utf-8", "surrogateescape"),
        }
        with self._rejects.open("ab") as stream:
            stream.write(dump_row(line) + b"\n")


def _raw(row: Row) -> bytes:
    """Return the bytes of a row as they stood in the file, else the row written anew."""
    if row.raw is not None:
        return row.raw
    try:
        return dump_row(row.value)
    except FormatError:  # nested as deeply as can be read, and too deeply to be written
        return b""


def list_files(source: Source) -> list[str]:
    """Return the files that `read_episodes` reads; standard input is ``-``.

    Raises:
        FormatError: a name leads to no file.
    """
    reference = split_reference(source)
    return list_named_files(source if reference is None else load_dataset_info(*reference)[0])


def read_episodes(
    source: Source,
    format: str | Format = "auto",
    *,
    skip_bad: bool = False,
    rejects: str | Path | None = None,
    max_row_bytes: int = DEFAULT_MAX_ROW_BYTES,
) -> EpisodeReader:
    """Read the episodes of a source.

    Args:
        source: a file, a folder, a glob, ``-`` for standard input, or a list of these; or ``dataset_info.json#name``,
            which names the format too and so stands alone.
        format: a name in the table of formats, ``package.module:Class``, a `Format`, or ``auto`` to tell it by the
            first rows.
        skip_bad: pass over rows that cannot be read, and count them. By default the first one raises.
        rejects: where rows that were passed over go, one JSON object a line: file, row, field, reason, mend and raw.
        max_row_bytes: a row that is longer is a bad row.

    Raises:
        ConfigError: the format is unknown.
        FormatError: while iterating, with file, row, field, reason and mend.
    """
    return EpisodeReader(source, format, skip_bad=skip_bad, rejects=rejects, max_row_bytes=max_row_bytes)


@dataclass(slots=True)
class WriteResult:
    """What was written, and how many episodes had a field that the format does not hold."""

    num_episodes: int = 0
    num_rows: int = 0
    lost: Counter[str] = field(default_factory=Counter)


def write_episodes(target: str | Path, episodes: Iterable[Episode], format: str | Format = "native") -> WriteResult:
    """Write episodes to a file, whole or not at all; ``-`` is standard output.

    Raises:
        ConfigError: the format is unknown.
        FormatError: the target cannot be written, or the format can only be read.
    """
    check_target(str(target))
    into = format if isinstance(format, Format) else get_format(format)
    result = WriteResult()

    def rows() -> Iterator[dict[str, JSON]]:
        for episode in episodes:
            encoded = into.encode(episode)
            result.num_episodes += 1
            result.num_rows += len(encoded.rows)
            result.lost.update(encoded.lost)
            yield from encoded.rows

    write_rows(target, rows(), envelope=into.envelope)
    return result
