"""``loss.png``: the training and validation loss over the steps of a run, from its metrics file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.runs import read_metrics
from understudy.runs.atomic import atomic_file

_MAX_SMOOTHED_STEPS = 50


def plot_loss(metrics: Path, target: Path) -> None:
    """Draw the losses that a metrics file holds, and the success of playing; nothing where it holds no loss.

    The title is the run's folder with the one around it, because a run's training is always called ``train``.
    """
    rows = read_metrics(metrics)
    train = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    validation = [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
    if not train and not validation:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=1)
        axes.plot(steps, _smoothed(losses), color="tab:blue", label="training")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color="tab:orange", marker="o", markersize=4, label="validation")
        for name, points in _by_source(rows).items():
            axes.plot(*zip(*points, strict=True), linewidth=1, linestyle=":", label=f"validation: {name}")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(str(Path(*metrics.absolute().parent.parts[-2:])))
    axes.grid(alpha=0.3)
    success = [(row["step"], row["eval_success"]) for row in rows if row.get("eval_success") is not None]
    handles, labels = axes.get_legend_handles_labels()
    if success:
        right = axes.twinx()
        right.plot(*zip(*success, strict=True), color="tab:green", marker="s", markersize=4, label="success (right)")
        right.set_ylim(-0.02, 1.02)
        right.set_ylabel("success on held-out tasks")
        handles, labels = handles + right.get_legend_handles_labels()[0], labels + right.get_legend_handles_labels()[1]
    axes.legend(handles, labels)
    with atomic_file(target) as file:
        figure.savefig(file, format="png", dpi=100)


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Return the mean of each loss and those just before it: a twentieth of the run, at most 50 steps."""
    width = min(max(len(losses) // 20, 1), _MAX_SMOOTHED_STEPS)
    windows = (losses[max(0, index - width + 1) : index + 1] for index in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def _by_source(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return each source's validation losses, its terms added up; nothing where there is one source only."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, terms in row.get("eval_sources", {}).items():
            losses = [term["loss"] for term in terms.values() if term["loss"] is not None]
            points.setdefault(name, []).append((row["step"], sum(losses)))
    return points if len(points) > 1 else {}
