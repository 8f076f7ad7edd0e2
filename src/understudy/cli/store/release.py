"""Free the rows or tasks that an owner holds, when it is dead for good and its lease has not run out yet.

`understudy store show` names the owners. Nothing is counted as trained. An owner that is alive after all is told at its
next renewal that it holds nothing, and stops.
"""

from __future__ import annotations

import argparse

from understudy.cli.console import messages
from understudy.cli.parser import Parser
from understudy.errors import ConfigError, did_you_mean

EPILOG = """
examples:
  understudy store release pool.db 'node7:/runs/first#1f0c2a9d'

exit status: 0 freed; 1 it is no store, or cannot be opened; 2 nobody of this name holds anything
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("owner", metavar="OWNER", help="who holds them, as understudy store show names it")


def run(args: argparse.Namespace) -> int:
    from understudy.stores import open_store

    with open_store(args.store) as store:
        counts = store.counts()
        owners = [*(lease.owner for lease in counts.leases), *counts.num_tasks]
        if args.owner not in owners:
            known = ", ".join(owners) or "nobody"
            near = did_you_mean(args.owner, owners)
            raise ConfigError(
                f"{args.store}: nothing is held by {args.owner!r}.{near} Rows or tasks are held by: {known}"
            )
        num_rows, num_tasks = store.release(args.owner), store.release_tasks(args.owner)
    tasks = f" and {num_tasks:,} tasks" if num_tasks else ""
    messages().print(f"{args.store}: {num_rows:,} rows{tasks} are free again", markup=False, soft_wrap=True)
    return 0
