"""Tasks that several collections share: a store in the journal's place.

Each collection claims a few tasks at a time, plays them, and puts each episode into the store in the same transaction
that lets its task go. So a task is in the store once, whoever is killed when: what a killed collection had claimed is
free again when its lease runs out.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from understudy.runs import Progress
from understudy.stores import LeaseKeeper, open_store
from understudy.types import Episode

from .config import SharedStoreSection
from .rollout import Play

WAIT_SECONDS = 1.0
"""Until it is looked again whether others have finished their tasks."""


class SharedJournal:
    """Stands in the place of a `Journal`.

    Args:
        config: which store, and how it is used.
        folder: of this collection.
        ids: of all episodes that there shall be.
        num_at_once: so many tasks are claimed together.

    Attributes:
        num_added: episodes that were played here.

    Raises:
        StoreError: the store cannot be opened.
    """

    def __init__(self, config: SharedStoreSection, folder: Path, ids: Sequence[str], *, num_at_once: int) -> None:
        self.num_added = 0
        self._config = config
        self._ids = ids
        self._num_at_once = num_at_once
        self._open = ExitStack()
        self._store = self._open.enter_context(open_store(config.path, create=True))
        # One process at a time holds the folder, so what stands under this name is what a kill has left.
        self._owner = f"{platform.node()}:{folder.resolve()}"
        self._store.release_tasks(self._owner)
        self._rows = self._store.find(ids)
        keeper = LeaseKeeper(config.path, self._owner, lease_seconds=config.lease_seconds, tasks=True)
        self._open.enter_context(keeper)

    def __contains__(self, id: str) -> bool:
        """Say whether an episode is there and was not ended by a fault."""
        return id in self._rows

    def success(self, id: str) -> bool | None:
        """Return the success of an episode that is there."""
        return self.episode(id).success

    def append(self, episode: Episode) -> None:
        """Put an episode into the store, unless somebody else has finished its task.

        Raises:
            FormatError: it cannot be written as JSON.
            StoreError: the store cannot be written to.
        """
        self._store.finish_task(self._owner, episode, split=self._config.split)
        self.num_added += 1

    async def play(
        self, plays: Iterable[Play], play: Callable[[Iterable[Play]], Awaitable[None]], progress: Progress
    ) -> None:
        """Play what others do not, then wait for them, and play what they leave, until all episodes are there.

        Args:
            play: plays those that it is given, which are claimed as it asks for them.
        """
        by_id = {one.id: one for one in plays}
        missing: tuple[str, ...] = tuple(by_id)
        while missing:
            await play(self._claimed(by_id[id] for id in missing))
            missing = self._store.open_tasks(missing)
            progress.done = len(self._ids) - len(missing)  # others have played too
            if missing:
                await asyncio.sleep(WAIT_SECONDS)

    def _claimed(self, plays: Iterable[Play]) -> Iterator[Play]:
        """Yield those plays that nobody else has played or plays."""
        waiting = iter(plays)
        while some := list(islice(waiting, self._num_at_once)):
            lease_seconds = self._config.lease_seconds
            mine = set(self._store.claim_tasks(self._owner, [play.id for play in some], lease_seconds=lease_seconds))
            yield from (play for play in some if play.id in mine)

    def episode(self, id: str) -> Episode:
        """Return an episode that is there, also one that a fault ended.

        Raises:
            KeyError: it is not there.
        """
        number = self._rows.get(id) or self._store.find([id]).get(id)
        if number is None:
            return self._store.faults([id])[id]
        ((_, episode),) = self._store.read([number])
        return episode

    def close(self) -> None:
        """Let go what is under way."""
        with self._open:
            self._store.release_tasks(self._owner)
