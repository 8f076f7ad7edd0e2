"""Free the rows that an owner holds, when it is dead for good and its lease has not run out yet.

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

exit status: 0 freed; 1 it is no store, or cannot be opened; 2 nobody of this name holds rows
"""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("owner", metavar="OWNER", help="who holds the rows, as understudy store show names it")


def run(args: argparse.Namespace) -> int:
    from understudy.stores import open_store

    with open_store(args.store) as store:
        owners = [lease.owner for lease in store.counts().leases]
        if args.owner not in owners:
            known = ", ".join(owners) or "nobody"
            near = did_you_mean(args.owner, owners)
            raise ConfigError(f"{args.store}: no rows are held by {args.owner!r}.{near} Rows are held by: {known}")
        num_rows = store.release(args.owner)
    messages().print(f"{args.store}: {num_rows:,} rows are free again", markup=False, soft_wrap=True)
    return 0
