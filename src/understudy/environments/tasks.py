"""Task sets: sized, seeded, and split so that no task can be in two splits.

Which split a task is in is decided by a hash of what the task *is*, and by nothing else. So splits cannot overlap,
whatever their sizes and seeds, and a task keeps its split when the set grows.
"""

from __future__ import annotations

import hashlib
import json
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON

SPLITS = ("train", "validation", "test")

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all possible tasks that each split gets."""

DEFAULT_SIZES = {"train": 10_000, "validation": 1_000, "test": 1_000}

MAX_DRAWS = 2_000
"""So many draws in a row without a new task mean that there are no more."""


def task_key(task: JSON) -> str:
    """Return 16 hexadecimal digits that stand for what a task is."""
    text = json.dumps(task, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_of(task: JSON) -> str:
    """Return the split that a task belongs to."""
    position = int(task_key(task), 16) / 16**16
    for split in SPLITS:
        position -= SHARES[split]
        if position < 0:
            return split
    return SPLITS[-1]


def check_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        ConfigError: it is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}.{did_you_mean(split, SPLITS)} Known: {', '.join(SPLITS)}")


def split_tasks(tasks: Sequence[JSON], split: str) -> list[JSON]:
    """Return those of a list of tasks that belong to a split: for environments whose tasks are a given list."""
    check_split(split)
    return [task for task in tasks if split_of(task) == split]


class LazyTasks(Sequence[JSON]):
    """Tasks that are made, or fetched, as they are asked for: here is what an index and a slice are."""

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        size = len(self)
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(size))]
        if index < 0:
            index += size
        if not 0 <= index < size:
            raise IndexError(f"task {index} of {size}")
        return self.task(index)

    @abstractmethod
    def task(self, index: int) -> JSON:
        """Return a task that there is, counted from 0."""


class TaskSet(LazyTasks):
    """Different tasks of one split, drawn as they are asked for.

    Task i is the same whatever the size is. It is found by drawing tasks 0 to i, which are kept.

    Args:
        draw: makes one task from a random number generator.
        split: one of `SPLITS`.
        size: how many tasks the set has.
        seed: other seeds give other tasks, of the same split.
        identity: what of a task says which split it is in, and is in no two tasks; by default all of it.

    Raises:
        ConfigError: the split is unknown or the size negative; when a task is asked for: no more tasks exist.
    """

    def __init__(
        self,
        draw: Callable[[random.Random], JSON],
        *,
        split: str,
        size: int,
        seed: int = 0,
        identity: Callable[[JSON], JSON] = lambda task: task,
    ) -> None:
        check_split(split)
        if size < 0:
            raise ConfigError(f"a task set has {size} tasks; give a number from 0 up")
        self.split = split
        self.seed = seed
        self._draw = draw
        self._identity = identity
        self._size = size
        self._tasks: list[JSON] = []
        self._keys: set[str] = set()

    def __len__(self) -> int:
        return self._size

    def task(self, index: int) -> JSON:
        """Return a task; those before it are drawn first."""
        while len(self._tasks) <= index:
            self._tasks.append(self._next_task())
        return self._tasks[index]

    def __iter__(self) -> Iterator[JSON]:
        return (self[index] for index in range(self._size))

    def _next_task(self) -> JSON:
        position = len(self._tasks)
        rng = random.Random(f"{self.seed}/{self.split}/{position}")
        for _ in range(MAX_DRAWS):
            task = self._draw(rng)
            identity = self._identity(task)
            key = task_key(identity)
            if key not in self._keys and split_of(identity) == self.split:
                self._keys.add(key)
                return task
        raise ConfigError(
            f"the {self.split} split has {self._size:,} tasks by its settings, but only {position:,} different ones "
            f"could be found; lower num_tasks.{self.split} or make the tasks more varied"
        )


def task_sizes(given: Mapping[str, int] | int | None) -> dict[str, int]:
    """Return the size of each split: one number for all, or a number for some of them; the others have their default.

    Raises:
        ConfigError: a split is unknown, or a size is no number from 0 up.
    """
    sizes = dict.fromkeys(SPLITS, given) if isinstance(given, int) else dict(given or {})
    for split, size in sizes.items():
        check_split(split)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConfigError(f"num_tasks.{split} is {size!r}; give a number from 0 up")
    return DEFAULT_SIZES | sizes
