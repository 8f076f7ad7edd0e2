"""Write the episodes of a store as rows of a file, which every other command reads.

The rows are native ones, which lose nothing, in the order in which they were added. The target appears under its name
only when it is complete. `understudy convert` makes any other format of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from understudy.cli.console import messages
from understudy.cli.parser import Parser
from understudy.cli.reading import check_target

if TYPE_CHECKING:
    from understudy.stores import Store
    from understudy.types import Episode

EPILOG = """
examples:
  understudy store export pool.db all.jsonl
  understudy store export pool.db held_out.parquet --split validation
  understudy store export pool.db - | understudy stats -

exit status: 0 written; 1 a row cannot be read, or there is none (nothing is written); 2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument(
        "dst", metavar="DST", help="file to write (.json .jsonl .parquet, also .gz .zst), or - for standard output"
    )
    parser.add_argument("--split", metavar="SPLIT", help="only the rows of this split (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace DST when it exists")


def run(args: argparse.Namespace) -> int:
    from understudy.errors import StoreError
    from understudy.formats import write_episodes
    from understudy.stores import open_store

    with open_store(args.store) as store:
        check_target(args.dst, [args.store], overwrite=args.overwrite, what="the store itself")
        rows = store.rows(args.split)
        if not rows:
            raise StoreError(store.counts().missing(args.split), file=args.store, mend="add some: understudy store add")
        result = write_episodes(args.dst, _read(store, rows))
    where = "standard output" if args.dst == "-" else args.dst
    messages().print(f"wrote {result.num_episodes:,} episodes to {where}", markup=False, soft_wrap=True)
    return 0


def _read(store: Store, rows: Sequence[int]) -> Iterator[Episode]:
    """Yield rows, showing how far it has come."""
    from understudy.runs import Progress

    with Progress("exporting", unit="episodes", total=len(rows), console=messages()) as progress:
        for _, episode in store.read(rows):
            yield episode
            progress.advance()
