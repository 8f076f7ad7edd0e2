"""Add episodes to a store, from any format; the store is made where there is none.

A row of a store is an episode, known by its id. Adding the same episode again changes nothing, so a command that was
stopped is simply given again. An id that is there with another content, or in another split, is an error. Rows without
an id are known by their content.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from understudy.cli.console import messages
from understudy.cli.parser import Parser
from understudy.cli.reading import add_source_arguments, episodes_with_progress, open_source, show_rejected

if TYPE_CHECKING:
    from understudy.stores import Store
    from understudy.types import Episode

EPILOG = """
examples:
  understudy store add pool.db runs/first/collect
  understudy store add pool.db held_out.jsonl --split validation
  understudy store add pool.db rows.parquet --format sharegpt --skip-bad

exit status: 0 added; 1 a row could not be read or an id is taken (what was added stays); 2 the command is wrong
"""

EPISODES_AT_ONCE = 256
"""Are added as a whole or not at all, while nobody else can write."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file, such as pool.db")
    add_source_arguments(parser)
    parser.add_argument(
        "--split",
        default="train",
        metavar="SPLIT",
        help="train (default), validation, or a name of your own that data.store.split asks for",
    )


def run(args: argparse.Namespace) -> int:
    from understudy.stores import open_store

    is_new = not os.path.exists(args.store)
    rejects = args.rejects or f"{args.store}.rejects.jsonl"
    reader = open_source(args, rejects=rejects)
    with open_store(args.store, create=True) as store:
        episodes = (_known_by_content(e, reader.place) for e in episodes_with_progress(reader, args, "adding"))
        _add(store, episodes, args.split, is_new=is_new)
    show_rejected(reader, rejects)
    return 0


def _known_by_content(episode: Episode, place: str) -> Episode:
    """Return an episode that is known by its content where its row had no id.

    The reader knows it by its place, which is another one when the same file is named in another way.
    """
    if not episode.id.startswith(place):
        return episode
    from understudy.formats import get_format
    from understudy.formats.rows import dump_row

    (row,) = get_format("native").encode(replace(episode, id="")).rows
    return replace(episode, id=hashlib.sha256(dump_row(row)).hexdigest()[:20])


def _add(store: Store, episodes: Iterable[Episode], split: str, *, is_new: bool) -> None:
    """Add episodes part by part, and give the account also where a part fails."""
    num_added = num_known = 0
    remaining = iter(episodes)
    try:
        while part := list(itertools.islice(remaining, EPISODES_AT_ONCE)):
            added = store.add(part, split=split)
            num_added += added.num_added
            num_known += added.num_known
    finally:
        made = "made and " if is_new else ""
        text = f"{store.address}: {made}added {num_added:,} episodes to the split {split!r}"
        text += f"; {num_known:,} were there already" if num_known else ""
        there = ", ".join(f"{name} {found.num_rows:,}" for name, found in store.counts().splits.items())
        messages().print(f"{text}. It has: {there or 'no rows'}", markup=False, soft_wrap=True)
