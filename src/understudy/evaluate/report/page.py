"""``report.html``: one self-contained page, to be mailed and kept. No script, nothing from elsewhere.

The template escapes whatever is put into it, and the page's own content security policy lets nothing load or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from understudy import __version__
from understudy.evaluate.findings import Findings, Side
from understudy.evaluate.scores import Outcome, Scores
from understudy.formats import read_episodes
from understudy.types import Episode

from .charts import Row, Series, curves, histogram, interval_plot
from .episodes import SideBySide, side_by_side
from .figures import differences, figure_rows, ks_to_show, percent, shown_estimate
from .tasks import KINDS, TaskResult, most_telling, rate, task_results

MAX_TASKS_IN_GRID = 2_000


@dataclass(frozen=True, slots=True)
class ShownTask:
    """A task with its episodes, as the page shows them."""

    result: TaskResult
    before: Outcome | None
    after: Outcome
    episodes: SideBySide


def html_report(findings: Findings) -> str:
    """Return the page."""
    sides = _sides(findings)
    results = task_results(findings.policy, findings.baseline) if findings.policy is not None else []
    return _template().render(
        version=__version__,
        style=Markup(_resource("report.css")),
        findings=findings,
        config=findings.config,
        sides=sides,
        figures=figure_rows([side.scores for _, side in sides]),
        differences=differences(findings),
        charts=_charts(sides, findings),
        results=results[:MAX_TASKS_IN_GRID],
        num_results=len(results),
        counts={kind: sum(result.kind == kind for result in results) for kind in KINDS},
        kinds=KINDS,
        shown=_shown(findings, results),
    )


def _sides(findings: Findings) -> list[tuple[str, Side]]:
    """Return the sides in the order of reading, each with its class: before, then after."""
    sides = [("before", findings.baseline), ("after", findings.policy)]
    return [(css, side) for css, side in sides if side is not None]


def _charts(sides: Sequence[tuple[str, Side]], findings: Findings) -> dict[str, Markup]:
    """Return the plots by name; those that would show nothing are left out."""
    charts: dict[str, Markup] = {}
    rows = [Row(name, css, scores.success) for name, css, scores in _named(sides) if scores.success is not None]
    if rows:
        charts["success"] = interval_plot(rows)
    ks = ks_to_show([side.scores for _, side in sides])
    if len(ks) > 1:
        passed = [
            Series(side.label, css, [found.any for found in side.scores.pass_at_k])
            for css, side in sides
            if len(side.scores.pass_at_k) == len(ks)
        ]
        charts["pass_at_k"] = curves(passed, [f"k = {k}" for k in ks])
    for name, value in (("reward", _reward), ("turns", _num_turns)):
        series = [Series(side.label, css, _values(side.outcomes, value)) for css, side in sides]
        series = [one for one in series if one.values]
        if len({value for one in series for value in one.values}) > 1:
            charts[name] = histogram(series)
    return charts


def _named(sides: Sequence[tuple[str, Side]]) -> Iterable[tuple[str, str, Scores]]:
    """Yield what has a row of its own among the rates: each side, and each agent and environment of several."""
    for css, side in sides:
        yield side.label, css, side.scores
        for name, scores in (*side.scores.agents.items(), *side.scores.environments.items()):
            yield f"– {name}", css, scores


def _shown(findings: Findings, results: Sequence[TaskResult]) -> list[ShownTask]:
    """Return the tasks whose episodes the page shows, with these read."""
    chosen = most_telling(results, findings.config.num_shown_tasks)
    if findings.policy is None:
        return []
    after = _read(findings.policy, {result.pair[1].episode for result in chosen})
    before: dict[str, Episode] = {}
    if findings.baseline is not None:
        wanted = (result.pair[0] for result in chosen)
        before = _read(findings.baseline, {outcome.episode for outcome in wanted if outcome is not None})
    shown = []
    for result in chosen:
        first, second = result.pair
        episodes = side_by_side(before[first.episode] if first is not None else None, after[second.episode])
        shown.append(ShownTask(result, first, second, episodes))
    return shown


def _read(side: Side, ids: set[str]) -> dict[str, Episode]:
    return {episode.id: episode for episode in read_episodes(str(side.episodes)) if episode.id in ids}


def _values(outcomes: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> list[float]:
    found = (value(outcome) for outcome in outcomes if outcome.error is None)
    return [one for one in found if one is not None]


def _reward(outcome: Outcome) -> float | None:
    return outcome.reward


def _num_turns(outcome: Outcome) -> float | None:
    return outcome.num_turns


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update({"interval": shown_estimate, "percent": percent, "rate": rate})
    return environment.from_string(_resource("report.html.j2"))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
