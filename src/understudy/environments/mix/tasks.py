"""The tasks of several environments in turn, in shares that hold from the first task on.

Whose turn it is depends on the shares alone, and not on how many tasks are asked for. So a collection that grows only
appends, and any part of it has the shares too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count, islice

from understudy.environments.tasks import LazyTasks
from understudy.types import JSON

ENVIRONMENT, TASK = "environment", "task"
"""Keys of a mix's task: whose it is, and the task as that environment knows it."""


class MixedTasks(LazyTasks):
    """The tasks of a mix, each of them ``{"environment": name, "task": the environment's own task}``.

    The set ends where it is the turn of an environment that has no more tasks. So no task comes twice, and the shares
    hold to the end; what the others have left is not used.

    Args:
        tasks: name -> the environment's own tasks.
        shares: name -> its share, from 0 up; need not sum to 1.
    """

    def __init__(self, tasks: Mapping[str, Sequence[JSON]], shares: Mapping[str, float]) -> None:
        self._names = sorted(tasks)  # so that the order in a config means nothing
        self._tasks = [tasks[name] for name in self._names]
        self._shares = [shares[name] for name in self._names]
        self._order = list(self._in_turn())

    def __len__(self) -> int:
        return len(self._order)

    def task(self, index: int) -> JSON:
        """Return a task, with whose it is."""
        whose, place = self._order[index]
        return {ENVIRONMENT: self._names[whose], TASK: self._tasks[whose][place]}

    def lacking(self, size: int) -> dict[str, int]:
        """Return the environments that have too few tasks for a set of this size, each with how many it would need."""
        needed = Counter(islice(take_turns(self._shares), size))
        return {self._names[i]: num for i, num in sorted(needed.items()) if num > len(self._tasks[i])}

    def _in_turn(self) -> Iterator[tuple[int, int]]:
        """Yield whose each task is, and which of that one's tasks."""
        taken = [0] * len(self._tasks)
        for whose in take_turns(self._shares):
            if taken[whose] == len(self._tasks[whose]):
                return
            yield whose, taken[whose]
            taken[whose] += 1


def take_turns(shares: Sequence[float]) -> Iterator[int]:
    """Yield whose turn it is, without end, so that every beginning has the shares as exactly as whole numbers can.

    After k turns, each of m has had k times its share, give or take 1 - 1 / (2m - 2) of a turn; with two, that is the
    nearest whole number. No order does better for all shares. This one is Tijdeman's: of those that are due, the one
    takes the turn that must have it the soonest (The chairman assignment problem, Discrete Mathematics 32, 1980).

    Args:
        shares: from 0 up; they need not sum to 1. Where all are 0 nobody has a turn.
    """
    exact = [Fraction(str(share)) for share in shares]  # 0.1 is a tenth, as it was written
    scale = math.lcm(*(share.denominator for share in exact))
    weights = [int(share * scale) for share in exact]
    total, spread = sum(weights), max(1, 2 * len(weights) - 2)
    had = [0] * len(weights)
    for turn in count(1) if total else ():
        due = [i for i, w in enumerate(weights) if (turn * w - had[i] * total) * spread >= total]
        whose = min(due, key=lambda i: Fraction((had[i] + 1) * spread - 1, weights[i]))
        had[whose] += 1
        yield whose
