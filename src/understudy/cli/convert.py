"""Read episodes from one format and write them in another.

Every format becomes the same episodes and every format is written from them. What the new format cannot hold is listed
at the end, field by field, with the number of episodes that had it; nothing is dropped silently. The target appears
under its name only when it is complete.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .console import messages
from .parser import Parser
from .reading import add_source_arguments, check_target, episodes_with_progress, open_source, show_rejected

if TYPE_CHECKING:
    from understudy.formats import EpisodeReader, WriteResult

EPILOG = """
examples:
  understudy convert chats.jsonl.zst episodes.parquet
  understudy convert rows.jsonl out.jsonl --to sharegpt --skip-bad
  understudy convert 'logs/**/*.json' all.jsonl --format my_mapping.yaml
  cat rows.jsonl | understudy convert - - --to messages | head -1

exit status: 0 written; 1 a row could not be read (nothing is written); 2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "dst", metavar="DST", help="file to write (.json .jsonl .parquet, also .gz .zst), or - for standard output"
    )
    parser.add_argument(
        "--to", default="native", metavar="F", help="format to write (default: native, which loses nothing)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST when it exists")


def run(args: argparse.Namespace) -> int:
    from understudy.formats import get_format, write_episodes

    target = get_format(args.to)
    rejects = args.rejects or (f"{args.dst}.rejects.jsonl" if args.dst != "-" else None)
    reader = open_source(args, rejects=rejects)
    check_target(args.dst, reader.files(), overwrite=args.overwrite)
    result = write_episodes(args.dst, episodes_with_progress(reader, args, "converting"), target)
    _show_result(args, reader, result)
    show_rejected(reader, rejects)
    return 0


def _show_result(args: argparse.Namespace, reader: EpisodeReader, result: WriteResult) -> None:
    from rich import box
    from rich.table import Table

    console = messages()
    detection = reader.detection
    if detection is not None and args.format == "auto":
        console.print(f"read as {detection.reason}", markup=False, soft_wrap=True)
    where = "standard output" if args.dst == "-" else args.dst
    text = f"wrote {result.num_episodes:,} episodes as {result.num_rows:,} rows of {args.to!r} to {where}"
    console.print(text, markup=False, soft_wrap=True)
    if result.lost:
        table = Table(title=f"what {args.to!r} cannot hold", title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("field")
        table.add_column("episodes", justify="right")
        for name, count in sorted(result.lost.items(), key=lambda item: (-item[1], item[0])):
            table.add_row(name, f"{count:,}")
        console.print(table)
