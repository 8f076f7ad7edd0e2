"""What the iterations of a loop came to, read from their folders: the same whenever it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.collect.collection import stats_path
from understudy.errors import ConfigError
from understudy.evaluate import Estimate
from understudy.formats import list_files

from .config import RunConfig
from .iterations import HELD_OUT, iteration_folder, settings_of


@dataclass(frozen=True, slots=True)
class Collected:
    """What an iteration collected.

    Args:
        num_known, num_successes: of the episodes whose success is known.
        labels: counts of a labeler's labels; empty without one.
    """

    player: str
    num_episodes: int
    num_known: int
    num_successes: int
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Past:
    """What an iteration came to. What it did not do is None.

    Args:
        num_train: episodes that it trained on, of this and earlier iterations.
        num_relabelled: failed episodes that were added in hindsight.
        score: what iterations are compared by, on the tasks of `loop.split`.
    """

    number: int
    folder: Path
    collected: Collected | None
    num_train: int | None
    num_relabelled: int | None
    score: Estimate | None


@dataclass(frozen=True, slots=True)
class History:
    """What a loop came to.

    Args:
        before: the score of the model that the loop began with.
        iterations: those that are done, in order.
        best: the number of the best one: that with the highest score, the first of several, or the last one where
            nothing is evaluated.
        is_early: no more are to follow, because the last few were no better.
        held_out: the report of the best model on `evaluate.split`; None while there is none.
    """

    metric: str
    split: str
    before: Estimate | None
    iterations: tuple[Past, ...]
    best: int
    is_early: bool
    held_out: dict[str, Any] | None = None


def read_history(config: RunConfig, num_done: int, *, with_held_out: bool = False) -> History:
    """Return what the first iterations of a loop came to.

    Args:
        num_done: how many; one at least.
        with_held_out: the last evaluation is done too.

    Raises:
        ConfigError: an iteration has no score to be compared by.
    """
    loop = settings_of(config)
    past = tuple(_past(config, number) for number in range(1, num_done + 1))
    before = None
    if config.evaluate is not None:
        before = _score(iteration_folder(config, 1) / "evaluate" / "report.json", "baseline", loop.metric)
    scores = [one.score.value for one in past if one.score is not None]
    best = 1 + scores.index(max(scores)) if scores else num_done
    is_early = loop.patience is not None and _num_worse(before, scores, loop.min_improvement) >= loop.patience
    report = Path(config.output_dir) / HELD_OUT / "evaluate" / "report.json"
    held_out = json.loads(report.read_bytes()) if with_held_out else None
    return History(loop.metric, loop.split, before, past, best, is_early, held_out)


def _num_worse(before: Estimate | None, scores: Sequence[float], least: float) -> int:
    """Return how many iterations at the end were no better than the best before them."""
    best, num = before.value if before is not None else float("-inf"), 0
    for score in scores:
        is_better = score > best and score >= best + least
        num = 0 if is_better else num + 1
        best = max(best, score)
    return num


def _past(config: RunConfig, number: int) -> Past:
    folder = iteration_folder(config, number)
    curated = None
    if (folder / "curate").is_dir():
        curated = json.loads((folder / "curate" / "curation_stats.json").read_bytes())
    metric = settings_of(config).metric
    score = None
    if config.evaluate is not None:
        score = _score(folder / "evaluate" / "report.json", "policy", metric)
        if score is None:
            raise ConfigError(f"loop.metric: no {metric} is known of iteration {number}, so none can be chosen by it")
    return Past(
        number=number,
        folder=folder,
        collected=_collected(folder / "collect") if (folder / "collect").is_dir() else None,
        num_train=curated["num_train"] if curated is not None else None,
        num_relabelled=curated["num_relabelled"] if curated is not None else None,
        score=score,
    )


def _collected(folder: Path) -> Collected:
    (episodes,) = list_files(str(folder))
    stats = json.loads(stats_path(Path(episodes)).read_bytes())
    names = dict.fromkeys(str(policy["name"]) for policy in stats["policies"].values())
    return Collected(
        player=", ".join(names),
        num_episodes=stats["num_episodes"],
        num_known=stats["num_success_known"],
        num_successes=stats["num_successes"],
        labels=stats.get("labels", {}),
    )


def _score(report: Path, side: str, metric: str) -> Estimate | None:
    found = (json.loads(report.read_bytes()).get(side) or {}).get(metric)
    if found is None:
        return None
    ends = {name: found[name] if found[name] is not None else sign * float("inf") for name, sign in _ENDS.items()}
    return Estimate(found["value"], ends["low"], ends["high"], found["num_tasks"], found["num_samples"])


_ENDS = {"low": -1, "high": 1}
