"""Show what a store holds: rows by split, how often they were trained, who holds rows until when, and who plays tasks.

A lease that has run out is shown until somebody claims its rows: they are free, and still their owner's if it comes
back first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from understudy.cli.console import results
from understudy.cli.parser import Parser

if TYPE_CHECKING:
    from rich.table import Table

    from understudy.stores import StoreCounts

EPILOG = """
examples:
  understudy store show pool.db
  understudy store show pool.db --json | jq '.leases[].owner'

exit status: 0 shown; 1 it is no store, or cannot be opened; 2 the command is wrong
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON; times are seconds since 1970")


def run(args: argparse.Namespace) -> int:
    from understudy.stores import open_store

    with open_store(args.store) as store:
        counts = store.counts()
    if args.json:
        print(json.dumps(asdict(counts), indent=2))
    else:
        _show(args.store, counts, time.time())
    return 0


def _show(address: str, counts: StoreCounts, now: float) -> None:
    from understudy.stores.times import show_time

    console = results()
    console.print(address, markup=False, soft_wrap=True)
    splits = _table("split", ("rows", "held", "trained"))
    for name, found in counts.splits.items():
        splits.add_row(name, f"{found.num_rows:,}", f"{found.num_leased:,}", _trained(found.num_by_trained_count))
    console.print(splits)
    for owner, number in counts.num_tasks.items():
        console.print(f"tasks being played by {owner}: {number:,}", markup=False, soft_wrap=True)
    if counts.num_faults:
        console.print(f"tasks ended by a fault, which are no rows: {counts.num_faults:,}")
    if not counts.leases:
        console.print("nobody holds rows")
        return
    leases = _table("rows are held by", ("split", "rows", "claimed", "until"))
    for lease in counts.leases:
        until = show_time(lease.lease_until) + (" (ran out)" if lease.lease_until <= now else "")
        leases.add_row(lease.owner, lease.split, f"{lease.num_rows:,}", show_time(lease.claimed_at), until)
    console.print(leases)


def _table(first: str, columns: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _trained(num_by_count: Mapping[int, int]) -> str:
    words = {0: "never", 1: "once", 2: "twice"}
    return ", ".join(f"{words.get(count, f'{count:,} times')} {number:,}" for count, number in num_by_count.items())
