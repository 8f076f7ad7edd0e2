"""Two policies on the same tasks: what each task came to for both, and whether they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .scores import Outcome, by_task
from .statistics import CONFIDENCE, Comparison, compare_paired


@dataclass(frozen=True, slots=True)
class PairedScores:
    """How a policy differs from a baseline, over the tasks that both have played: policy minus baseline.

    Args:
        success: of the success rate; None where no task has a known success on both sides.
        reward: of the mean reward, likewise.
        num_common: tasks that both have played.
        num_only_policy, num_only_baseline: tasks that one of them alone has played; they enter no comparison.
    """

    success: Comparison | None
    reward: Comparison | None
    num_common: int
    num_only_policy: int
    num_only_baseline: int


def compare(
    baseline: Sequence[Outcome], policy: Sequence[Outcome], *, confidence: float = CONFIDENCE, seed: int = 0
) -> PairedScores:
    """Compare two policies task by task.

    Args:
        confidence: of the intervals.
        seed: of the resampling.
    """
    tasks, others = {outcome.task for outcome in policy}, {outcome.task for outcome in baseline}

    def compared(name: str) -> Comparison | None:
        first, second = (
            by_task((outcome for outcome in side if outcome.error is None), lambda outcome: getattr(outcome, name))
            for side in (baseline, policy)
        )
        common = [task for task in second if task in first]
        if not common:
            return None
        pairs = [first[task] for task in common], [second[task] for task in common]
        return compare_paired(*pairs, confidence=confidence, seed=seed)

    return PairedScores(
        success=compared("success"),
        reward=compared("reward"),
        num_common=len(tasks & others),
        num_only_policy=len(tasks - others),
        num_only_baseline=len(others - tasks),
    )
