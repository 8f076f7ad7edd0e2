"""Stores: episodes in one place that many processes add to and train from, each row with who trained it and when.

A trainer claims rows under a name of its own and with a lease, renews the lease while it works, and acknowledges the
rows when they are used. What it holds nobody else gets; what it held when it died is free again when the lease runs
out. `open_store` opens one: a path is a file of SQLite, which needs no server.
"""

from .base import Added, Claim, Lease, LeaseLost, SplitCounts, Store, StoreCounts, open_store
from .keeper import LeaseKeeper

__all__ = [
    "Added",
    "Claim",
    "Lease",
    "LeaseKeeper",
    "LeaseLost",
    "SplitCounts",
    "Store",
    "StoreCounts",
    "open_store",
]
