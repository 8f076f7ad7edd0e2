"""What commands that read episodes have in common: their options, targets, progress, and the account of bad rows."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from understudy import registry
from understudy.errors import ConfigError

from .console import messages
from .parser import Parser, positive_int

if TYPE_CHECKING:
    from understudy.formats import EpisodeReader
    from understudy.types import Episode

MAX_REASONS_SHOWN = 5


def add_source_arguments(parser: Parser) -> None:
    """Add SRC and the options that say how to read it."""
    parser.add_argument(
        "src",
        nargs="+",
        metavar="SRC",
        help="file, folder or glob (.json .jsonl .parquet, also .gz .zst), dataset_info.json#NAME, or - for standard "
        "input",
    )
    parser.add_argument(
        "--format",
        default="auto",
        metavar="F",
        help=f"format of the rows: {', '.join(registry.TABLES['formats'])}, a mapping (file.yaml, file.py:function) "
        "or package.module:Class (default: detect)",
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="read only the first N episodes")
    parser.add_argument("--skip-bad", action="store_true", help="pass over rows that cannot be read, and count them")
    parser.add_argument(
        "--max-row-bytes", type=positive_int, metavar="N", help="a longer row is a bad row (default: 256 MiB)"
    )
    parser.add_argument("--rejects", metavar="FILE", help="with --skip-bad: write those rows and the reasons here")


def open_source(args: argparse.Namespace, *, rejects: str | None = None) -> EpisodeReader:
    """Open what the arguments name.

    Args:
        rejects: where bad rows go when ``--rejects`` names nothing.

    Raises:
        ConfigError: the format is unknown, or ``--rejects`` stands without ``--skip-bad``.
        FormatError: nothing is there.
    """
    from understudy.formats import DEFAULT_MAX_ROW_BYTES, read_episodes

    if args.rejects and not args.skip_bad:
        raise ConfigError("--rejects needs --skip-bad; without it the first bad row stops the command")
    source = args.src[0] if len(args.src) == 1 else args.src
    reader = read_episodes(
        source,
        args.format,
        skip_bad=args.skip_bad,
        rejects=args.rejects or rejects,
        max_row_bytes=args.max_row_bytes or DEFAULT_MAX_ROW_BYTES,
    )
    reader.files()
    return reader


def check_target(
    target: str, sources: Iterable[str], *, overwrite: bool, what: str = "one of the files to read"
) -> None:
    """Refuse to write over something that was not meant to be lost.

    Args:
        what: the sources are, in words.

    Raises:
        ConfigError: the target is one of the sources, or is there and `overwrite` is not given.
    """
    if target == "-" or not os.path.exists(target):
        return
    if any(source != "-" and os.path.samefile(source, target) for source in sources):
        raise ConfigError(f"{target}: is {what}; name another target")
    if not overwrite:
        raise ConfigError(f"{target}: exists already; --overwrite replaces it")


def episodes_with_progress(reader: EpisodeReader, args: argparse.Namespace, label: str) -> Iterator[Episode]:
    """Yield the episodes, at most ``--limit`` of them, showing how far it has come."""
    from understudy.runs import Progress

    with Progress(label, unit="episodes", total=args.limit, console=messages()) as progress:
        for episode in itertools.islice(reader, args.limit):
            yield episode
            progress.advance(fraction=reader.fraction)


def show_rejected(reader: EpisodeReader, rejects: str | None) -> None:
    """Say how many rows were passed over, why, and where they are."""
    if not reader.num_rejected:
        return
    console = messages()
    where = f"; they are in {Path(rejects)}" if rejects else ""
    lines = [f"{reader.num_rejected:,} of {reader.num_rows:,} rows could not be read{where}"]
    shown = reader.reasons.most_common(MAX_REASONS_SHOWN)
    lines += [f"  {count:,} × {reason}" for reason, count in shown]
    hidden = reader.num_rejected - sum(count for _, count in shown)
    if hidden:
        lines.append(f"  {hidden:,} for other reasons")
    console.print("\n".join(lines), markup=False, soft_wrap=True)
