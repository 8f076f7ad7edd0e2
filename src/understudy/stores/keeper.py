"""Renewing a lease while its owner works."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from understudy.errors import StoreError

from .base import LeaseLost, open_store

log = logging.getLogger("understudy.stores")

_RENEWALS_PER_LEASE = 4
"""So that a lease outlives a few renewals that fail, because the store is locked or its disk is full for a while."""


class LeaseKeeper:
    """Renews a lease from a thread of its own, for the length of a block.

    Args:
        address: the store's.
        tasks: renew the owner's tasks, and not its rows.

    Attributes:
        lost: why the lease is lost; None while it is kept. Nothing is renewed from then on.
    """

    def __init__(self, address: str, owner: str, *, lease_seconds: float, tasks: bool = False) -> None:
        self.lost: LeaseLost | None = None
        self._address = address
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._tasks = tasks
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease of {owner}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._lease_seconds / _RENEWALS_PER_LEASE):
            try:
                with open_store(self._address) as store:
                    renew = store.renew_tasks if self._tasks else store.renew
                    renew(self._owner, lease_seconds=self._lease_seconds)
            except LeaseLost as error:
                self.lost = error
                log.error("%s", error)
                return
            except StoreError as error:
                log.warning("the lease of %s could not be renewed, which will be tried again: %s", self._owner, error)
