"""Task by task: what each came to on both sides, and which of them are worth looking at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from understudy.evaluate.findings import Side
from understudy.evaluate.scores import Outcome

Kind = Literal["won", "lost", "solved", "partly", "failed", "unknown"]

KINDS: dict[Kind, str] = {
    "won": "better than the baseline",
    "lost": "worse than the baseline",
    "solved": "solved",
    "partly": "solved at times",
    "failed": "not solved",
    "unknown": "unknown",
}
"""Each kind of task, and what it is called."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task.

    Args:
        number: of the task in its set, or in the order of playing.
        before, after: its samples; `before` is empty without a baseline.
    """

    number: int
    kind: Kind
    before: tuple[Outcome, ...]
    after: tuple[Outcome, ...]

    @property
    def pair(self) -> tuple[Outcome | None, Outcome]:
        """The samples that show best what happened: where rates differ, one that the better side solved and one that
        the other did not."""
        if self.kind in ("won", "lost"):
            is_won = self.kind == "won"
            return _first(self.before, not is_won), _first(self.after, is_won)
        return (self.before[0] if self.before else None), self.after[0]


def task_results(policy: Side, baseline: Side | None) -> list[TaskResult]:
    """Return all tasks that the policy has played, in its order."""
    before = _by_task(baseline.outcomes) if baseline is not None else {}
    results = []
    for position, (task, after) in enumerate(_by_task(policy.outcomes).items()):
        number = after[0].task_index if after[0].task_index is not None else position
        earlier = tuple(before.get(task, ()))
        results.append(TaskResult(number, _kind(earlier, after), earlier, tuple(after)))
    return results


def most_telling(results: Sequence[TaskResult], num: int) -> list[TaskResult]:
    """Choose tasks to look at: first those whose result differs, lost and won in turn, then some of each other kind.

    A quarter of the places is for the others, which say where both fail.
    """

    def of(kind: Kind) -> list[TaskResult]:
        return [result for result in results if result.kind == kind]

    differing = list(_in_turn([of("lost"), of("won")]))
    others = list(_in_turn([of("failed"), of("unknown"), of("partly"), of("solved")]))
    num_differing = num - min(num // 4, len(others))
    return (differing[:num_differing] + others)[:num]


def rate(outcomes: Sequence[Outcome]) -> float | None:
    """Return the success rate of a task's samples; None where none is known."""
    known = [outcome.success for outcome in outcomes if outcome.error is None and outcome.success is not None]
    return sum(known) / len(known) if known else None


def _kind(before: Sequence[Outcome], after: Sequence[Outcome]) -> Kind:
    first, second = rate(before), rate(after)
    if second is None:
        return "unknown"
    if first is not None and first != second:
        return "won" if second > first else "lost"
    return "solved" if second == 1 else "failed" if second == 0 else "partly"


def _by_task(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.task, []).append(outcome)
    return grouped


def _first(outcomes: Sequence[Outcome], success: bool) -> Outcome:
    return next((outcome for outcome in outcomes if outcome.success is success), outcomes[0])


def _in_turn(groups: Sequence[Sequence[TaskResult]]) -> Iterator[TaskResult]:
    """Yield one of each group, then the next of each."""
    for row in zip_longest(*groups):
        yield from (result for result in row if result is not None)
