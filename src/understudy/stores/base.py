"""What every store can do. The promises that hold among any number of processes, whatever is killed when:

- A row is held by one owner at a time. An owner that asks again gets the same rows in the same order.
- A row is counted as trained once for each claim that acknowledges it, and only while nobody else holds it or has
  trained it since.
- A lease that runs out takes nothing away by itself: the rows are free to all, and stay with their owner until somebody
  claims them. Whoever lost one is told so, and by whom it was taken.
- Every operation happens as a whole or not at all.

Several collectors may also play episodes into a store. A task is known by the id of the episode that it becomes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from understudy import registry
from understudy.errors import StoreError
from understudy.types import Episode

TRAIN = "train"
VALIDATION = "validation"
DEFAULT_LEASE_SECONDS = 3600.0


class LeaseLost(StoreError):
    """An owner's lease has ended, and it may not go on: others have claimed rows of it since, or they were released."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of episodes that were added: `num_known` were there already, with the same content and split."""

    num_added: int
    num_known: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Rows that an owner holds.

    Args:
        rows: their numbers, in the order in which they were claimed; empty where nothing was free.
        lease_until: seconds since 1970; others may claim them from then on.
    """

    owner: str
    rows: tuple[int, ...]
    lease_until: float


@dataclass(frozen=True, slots=True)
class Lease:
    """Rows that are held, as an onlooker sees it: how many, by whom, since when and until when (seconds since 1970)."""

    owner: str
    split: str
    num_rows: int
    claimed_at: float
    lease_until: float


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """The rows of one split.

    Args:
        num_leased: rows that are held by a lease that has not run out.
        num_by_trained_count: how many rows were trained how often.
    """

    num_rows: int
    num_leased: int
    num_by_trained_count: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What a store holds.

    Args:
        splits: by name.
        leases: of rows, also those that have run out and were not taken yet.
        num_tasks: how many tasks each collector plays at the moment.
        num_faults: tasks whose last play was ended by a fault.
    """

    splits: Mapping[str, SplitCounts]
    leases: tuple[Lease, ...]
    num_tasks: Mapping[str, int]
    num_faults: int

    def missing(self, split: str | None = None) -> str:
        """Say that there is no row, or none of a split, and which splits there are."""
        of_split = "" if split is None else f" of the split {split!r}"
        return f"there is no row{of_split}; it has: {', '.join(self.splits) or 'none at all'}"


class Store(ABC):
    """Episodes as rows that are trained; see the module's docstring for what is promised.

    Rows are known by their numbers, which grow in the order in which rows are added. One thread at a time uses an
    open store.

    Args:
        address: where it is, as the user named it.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def add(self, episodes: Iterable[Episode], *, split: str = TRAIN) -> Added:
        """Add episodes, all or none. Those that are there already, with the same content and split, change nothing.

        Raises:
            StoreError: an episode of this id is there with another content, or in another split.
            FormatError: one cannot be written as JSON.
        """

    @abstractmethod
    def claim(
        self,
        owner: str,
        *,
        split: str = TRAIN,
        limit: int | None = None,
        max_trained_count: int | None = None,
        retrained_interval_seconds: float | None = None,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> Claim:
        """Take rows that nobody holds: those that were trained least first, then those that were added first.

        An owner that holds rows gets these again, with a new lease; the other arguments say nothing then.

        Args:
            limit: at most so many; None for all.
            max_trained_count: only rows that were trained less often than that.
            retrained_interval_seconds: only rows that were not trained within that time.

        Raises:
            LeaseLost: the owner held rows, and some were taken.
            StoreError: the owner holds rows of another split.
        """

    @abstractmethod
    def free(
        self,
        *,
        split: str = TRAIN,
        limit: int | None = None,
        max_trained_count: int | None = None,
        retrained_interval_seconds: float | None = None,
    ) -> tuple[int, ...]:
        """Return the rows that `claim` would take, and take none."""

    @abstractmethod
    def resume(self, owner: str, *, lease_seconds: float = DEFAULT_LEASE_SECONDS) -> Claim | None:
        """Return the rows of the owner's last claim again, whether it has ended or not; None where there was none.

        Those that it has not acknowledged are held again. Those that it has are not: whoever goes on with them counts
        them no second time.

        Raises:
            LeaseLost: some of those that it has not acknowledged are held by others, or were trained by others since.
        """

    @abstractmethod
    def renew(self, owner: str, *, lease_seconds: float = DEFAULT_LEASE_SECONDS) -> float:
        """Let the owner's lease last so long from now on, and return until when (seconds since 1970).

        Raises:
            LeaseLost: rows of it were taken, or all were released or acknowledged.
            StoreError: the owner has claimed nothing.
        """

    @abstractmethod
    def acknowledge(self, owner: str, rows: Collection[int] | None = None) -> int:
        """Count the owner's rows as trained, let all that it holds go, and return how many were counted.

        A second time, nothing is left to be counted.

        Args:
            rows: those that were used; None for all.

        Raises:
            LeaseLost: rows of it were taken; nothing is counted.
            StoreError: the owner has claimed nothing, or not these rows.
        """

    @abstractmethod
    def release(self, owner: str) -> int:
        """Let all rows go that the owner holds, uncounted, and return how many; also what is left of a lost lease."""

    @abstractmethod
    def rows(self, split: str | None = None, *, through: int | None = None) -> tuple[int, ...]:
        """Return the numbers of all rows, or of one split's, in ascending order.

        Args:
            through: only rows up to this number.
        """

    @abstractmethod
    def read(self, rows: Iterable[int]) -> Iterator[tuple[int, Episode]]:
        """Yield rows with their numbers, in the order that is asked for.

        Raises:
            StoreError: there is no such row, or it cannot be read.
        """

    @abstractmethod
    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of the rows that hold these episodes, by id; those that are not there are left out."""

    @abstractmethod
    def claim_tasks(self, owner: str, ids: Sequence[str], *, lease_seconds: float) -> tuple[str, ...]:
        """Take those tasks whose episodes are not there and that nobody else plays, and return them in their order."""

    @abstractmethod
    def renew_tasks(self, owner: str, *, lease_seconds: float) -> int:
        """Let the owner's tasks stay its own for so long from now on, and return how many it has."""

    @abstractmethod
    def finish_task(self, owner: str, episode: Episode, *, split: str = TRAIN) -> bool:
        """Add the episode of a task and let the task go, both or neither; one that a fault ended is kept aside instead.

        Returns:
            Whether it was taken: not where another has finished the task or plays it, because this lease had run out.

        Raises:
            FormatError: it cannot be written as JSON.
        """

    @abstractmethod
    def release_tasks(self, owner: str) -> int:
        """Let the owner's tasks go, unplayed, and return how many."""

    @abstractmethod
    def open_tasks(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return those tasks that are to be played or under way: no episode is there, and no fault has ended one."""

    @abstractmethod
    def faults(self, ids: Iterable[str]) -> dict[str, Episode]:
        """Return the last plays of tasks that were ended by a fault, by id."""

    @abstractmethod
    def counts(self) -> StoreCounts:
        """Return what the store holds at this moment."""

    @abstractmethod
    def close(self) -> None:
        """Let the store go. What is claimed stays claimed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(address: str | Path, *, create: bool = False) -> Store:
    """Open a store: a path is a file of SQLite, ``name://…`` a store of that name in the table of stores.

    Args:
        create: make it where it is missing.

    Raises:
        StoreError: it is missing, is no store, is of a newer Understudy, or cannot be opened; or there is no such kind.
    """
    text = str(address)
    scheme, separator, _ = text.partition("://")
    name = scheme.partition("+")[0] if separator else "sqlite"
    if name not in registry.names("stores"):
        raise StoreError(
            f"there is no store of the kind {name!r}",
            file=text.partition("@")[2] or text,  # what stands before an @ may be a password
            mend="name a file, such as pool.db: it needs no server",
        )
    store: Store = registry.load("stores", name)(text, create=create)
    return store
