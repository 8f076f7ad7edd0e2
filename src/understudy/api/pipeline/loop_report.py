"""The report of a loop: a table for the terminal, ``report.json`` with all figures, and a page that plots them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from understudy import __version__
from understudy.evaluate import Estimate
from understudy.evaluate.report.charts import Row, interval_plot
from understudy.evaluate.report.figures import percent
from understudy.runs import write_atomically

from .config import RunConfig
from .history import Collected, History, Past
from .iterations import HELD_OUT

SCHEMA_VERSION = 1
JSON_REPORT = "report.json"
HTML_REPORT = "report.html"

COLUMNS = ("iteration", "played by", "succeeded while collecting", "trained on", "{metric} on {split} tasks")


def write_report(config: RunConfig, history: History) -> None:
    """Write ``report.json`` and ``report.html`` into the loop's folder."""
    folder = Path(config.output_dir)
    text = json.dumps(_as_json(config, history), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / JSON_REPORT, text + "\n")
    write_atomically(folder / HTML_REPORT, _page(config, history))


def table_rows(history: History) -> list[list[str]]:
    """Return the table: a head, the model before the loop, and a row for each iteration."""
    head = [column.format(metric=history.metric, split=history.split) for column in COLUMNS]
    rows = [["before", "", "", "", _shown(history, history.before)]] if history.before is not None else []
    for past in history.iterations:
        best = " (best)" if past.number == history.best and past.score is not None else ""
        played = past.collected.player if past.collected is not None else "nobody"
        score = _shown(history, past.score)
        rows.append([f"{past.number}{best}", played, _succeeded(past.collected), _trained_on(past), score])
    return [head, *rows]


def held_out_text(history: History) -> str | None:
    """Return in a line what the best model does on tasks that nothing was chosen by; None while that is not known."""
    report = history.held_out
    if report is None or report["policy"] is None or report["policy"]["success"] is None:
        return None
    found = report["policy"]["success"]
    text = f"on {report['split']} tasks iteration {history.best} succeeds in {percent(found['value'])}"
    text += f" [{percent(found['low'])}, {percent(found['high'])}]" if found["low"] is not None else ""
    before = (report["baseline"] or {}).get("success")
    comparison = (report["comparison"] or {}).get("success")
    if before is not None and comparison is not None:
        low, high = 100 * comparison["low"], 100 * comparison["high"]
        text += f"; before the loop {percent(before['value'])}: {100 * comparison['difference']:+.1f} points "
        text += f"[{low:+.1f}, {high:+.1f}]"
    return text


def _succeeded(collected: Collected | None) -> str:
    if collected is None:
        return "-"
    rate = f"{percent(collected.num_successes / collected.num_known)} of " if collected.num_known else ""
    text = f"{rate}{collected.num_episodes:,}"
    if collected.labels:
        text += f"; {collected.labels['num_labels']:,} labels, {collected.labels['num_disagreeing']:,} disagree"
    return text


def _trained_on(past: Past) -> str:
    if past.num_train is None:
        return "the same as before"
    relabelled = f", {past.num_relabelled:,} relabelled" if past.num_relabelled else ""
    return f"{past.num_train:,} episodes{relabelled}"


def _shown(history: History, score: Estimate | None) -> str:
    if score is None:
        return "-"
    shown = percent if history.metric == "success" else "{:.3g}".format
    if not math.isfinite(score.low):
        return shown(score.value)
    return f"{shown(score.value)}  [{shown(score.low)}, {shown(score.high)}]"


def _as_json(config: RunConfig, history: History) -> dict[str, Any]:
    assert config.collect is not None
    held_out = history.held_out
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": config.collect.environment.model_dump(mode="json"),
        "metric": history.metric,
        "split": history.split,
        "num_iterations": config.iterations,
        "before": _estimate(history.before),
        "iterations": [
            asdict(past) | {"folder": past.folder.name, "score": _estimate(past.score)} for past in history.iterations
        ],
        "best": history.best,
        "is_early": history.is_early,
        "held_out": {key: held_out[key] for key in ("split", "policy", "baseline", "comparison")} if held_out else None,
    }


def _estimate(score: Estimate | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {key: value if math.isfinite(value) else None for key, value in asdict(score).items()}


def _page(config: RunConfig, history: History) -> str:
    assert config.collect is not None
    head, *rows = table_rows(history)
    scored = [("before the loop", "before", history.before)] if history.before is not None else []
    scored += [(f"iteration {past.number}", "after", past.score) for past in history.iterations if past.score]
    is_rate = all(score.low >= 0 and score.high <= 1 for _, _, score in scored)
    plotted = [Row(label, css, score) for label, css, score in scored]
    return _template().render(
        version=__version__,
        style=Markup((resources.files("understudy.evaluate.report") / "report.css").read_text(encoding="utf-8")),
        config=config,
        history=history,
        head=head,
        rows=rows,
        chart=interval_plot(plotted) if plotted and is_rate else None,
        held_out=history.held_out,
        held_out_folder=HELD_OUT,
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["percent"] = percent
    source = (resources.files(__package__) / "loop.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
