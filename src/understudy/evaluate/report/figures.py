"""Figures as text: the same for the page and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from understudy.evaluate.findings import Findings
from understudy.evaluate.scores import Scores
from understudy.evaluate.statistics import Comparison, Estimate


@dataclass(frozen=True, slots=True)
class Difference:
    """How policy and baseline differ, in words.

    Args:
        name: of what.
        value: the difference, with its sign and unit.
        evidence: its interval and p-value.
        comparison: the figures.
    """

    name: str
    value: str
    evidence: str
    comparison: Comparison

    @property
    def num_equal(self) -> int:
        """Tasks on which both came to the same."""
        return self.comparison.num_tasks - self.comparison.num_better - self.comparison.num_worse


def percent(value: float) -> str:
    """Return a share as ``12.3%``."""
    return f"{100 * value:.1f}%"


def differences(findings: Findings) -> list[Difference]:
    """Return the differences that were found: of success, then of reward where it says something else."""
    paired = findings.comparison
    if paired is None:
        return []
    found = [("success", paired.success, 100.0, " points"), ("reward", paired.reward, 1.0, "")]
    out: list[Difference] = []
    for name, comparison, scale, unit in found:
        if comparison is None or (out and comparison == out[0].comparison):
            continue
        low, high = f"{comparison.low * scale:+.3g}", f"{comparison.high * scale:+.3g}"
        p = comparison.p_value
        evidence = (
            f"{100 * findings.config.confidence:g}% interval {low} to {high} · "
            f"{'p < 0.001' if p < 0.001 else f'p = {p:.2g}'} ({comparison.method})"
        )
        out.append(Difference(name, f"{comparison.difference * scale:+.3g}{unit}", evidence, comparison))
    return out


def figure_rows(scores: Sequence[Scores]) -> list[tuple[str, list[str]]]:
    """Return the rows of a table of figures: a name, and a text for each side. Rows without any are left out."""
    rows = [
        ("success", [shown_estimate(one.success, percent) for one in scores]),
        *((f"– of {agent}", [_of(one.agents.get(agent)) for one in scores]) for agent in _agents(scores)),
        *((f"– in {name}", [_of(one.environments.get(name)) for one in scores]) for name in _environments(scores)),
        *((f"pass@{k}", [_passed(one, k, "any") for one in scores]) for k in ks_to_show(scores)),
        *((f"all of {k} succeed (pass^{k})", [_passed(one, k, "all") for one in scores]) for k in ks_to_show(scores)),
        ("reward", [shown_estimate(one.reward, "{:.3g}".format) for one in scores]),
        ("turns of an episode", [shown_estimate(one.turns, "{:.3g}".format) for one in scores]),
        ("prompt tokens of an episode", [shown_estimate(one.prompt_tokens, "{:,.0f}".format) for one in scores]),
        ("new tokens of an episode", [shown_estimate(one.completion_tokens, "{:,.0f}".format) for one in scores]),
        ("tasks", [f"{one.num_tasks:,}" for one in scores]),
        ("episodes", [f"{one.num_episodes:,}" for one in scores]),
        ("ended by a fault, not counted above", [f"{one.num_errors:,}" for one in scores]),
        ("success unknown", [_or_none(one.num_episodes - one.num_errors - one.num_known) for one in scores]),
        ("how episodes ended", [_reasons(one.stop_reasons) for one in scores]),
        ("faults", [_reasons(one.errors) for one in scores]),
    ]
    return [(name, texts) for name, texts in rows if any(texts)]


def shown_estimate(found: Estimate | None, shown: Callable[[float], str] = percent) -> str:
    """Return a value with its interval; empty where there is none."""
    if found is None:
        return ""
    if not math.isfinite(found.low):
        return f"{shown(found.value)} (one task: no interval)"
    return f"{shown(found.value)}  [{shown(found.low)}, {shown(found.high)}]"


def _agents(scores: Iterable[Scores]) -> list[str]:
    """Return the agents that are scored apart."""
    return list(dict.fromkeys(agent for one in scores for agent in one.agents))


def _environments(scores: Iterable[Scores]) -> list[str]:
    """Return the environments that are scored apart."""
    return list(dict.fromkeys(name for one in scores for name in one.environments))


def _of(scores: Scores | None) -> str:
    return shown_estimate(scores.success, percent) if scores is not None else ""


def ks_to_show(scores: Iterable[Scores]) -> list[int]:
    """Return for which k pass@k says more than the success rate does."""
    ks = sorted({found.k for one in scores for found in one.pass_at_k})
    return ks if ks != [1] else []


def _passed(scores: Scores, k: int, which: str) -> str:
    found = next((found for found in scores.pass_at_k if found.k == k), None)
    if found is None or (which == "all" and k == 1):
        return ""
    few = f" (of {found.num_tasks:,} tasks)" if found.num_tasks < scores.num_tasks else ""
    return percent(getattr(found, which)) + few


def _or_none(count: int) -> str:
    return f"{count:,}" if count else ""


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
