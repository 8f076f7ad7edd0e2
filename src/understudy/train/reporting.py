"""What a run tells while it runs: ``metrics.jsonl``, the progress display, the trackers, and the plot."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from understudy.errors import TrainError
from understudy.runs import MetricsWriter, Progress, RunFolder

from .plot import plot_loss
from .stats import StepStats, TermStats
from .trackers import Trackers

log = logging.getLogger("understudy.train")


class Reporter:
    """Tells about one run; used as a context.

    Args:
        folder: the run's folder; None on ranks that tell nothing.
        trackers: None for none.
        first_step: steps done before, by the run that this one goes on with; metrics of later ones are taken away.
        num_steps: of the whole run.
    """

    def __init__(self, folder: RunFolder | None, trackers: Trackers | None, *, first_step: int, num_steps: int) -> None:
        self._folder = folder
        self._trackers = trackers
        self._metrics: MetricsWriter | None = None
        self._progress: Progress | None = None
        self._num_steps = num_steps
        self._open = contextlib.ExitStack()
        if folder is not None:
            keep = first_step if first_step else -1
            self._metrics = self._open.enter_context(folder.metrics(keep_through_step=keep))
            self._progress = Progress("training", unit="steps", total=num_steps, done=first_step)

    def __enter__(self) -> Reporter:
        if self._progress is not None:
            self._open.enter_context(self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if self._trackers is not None:
            self._trackers.close()

    def step(self, step: int, epoch: float, learning_rate: float, stats: StepStats, *, seconds: float) -> None:
        """Tell what an optimiser step measured; `step` counts those done, `learning_rate` is the one it used."""
        if self._metrics is None or self._progress is None:
            return
        row: dict[str, Any] = {
            "epoch": round(epoch, 6),
            "loss": stats.loss,
            "learning_rate": learning_rate,
            "grad_norm": stats.grad_norm,
            "num_tokens": stats.num_tokens,
            "num_row_tokens": stats.num_row_tokens,
            "tree_saving": stats.tree_saving,
            "seconds": seconds,
            "tokens_per_second": stats.num_row_tokens / seconds,
            "terms": _terms(stats.terms),
            "sources": {name: _terms(terms) for name, terms in stats.sources.items()},
        } | ({"skipped": True} if stats.skipped else {})
        self._write(self._metrics, step, row)
        shown = {
            "loss": f"{stats.loss:.4f}",
            "lr": f"{learning_rate:.2e}",
            "tokens/s": f"{row['tokens_per_second']:,.0f}",
            "saved by trees": f"{stats.tree_saving:.0%}",
        }
        self._progress.advance(shown=shown)

    def evaluation(self, step: int, epoch: float, stats: StepStats, *, seconds: float, is_best: bool) -> None:
        """Tell what a validation measured after `step` steps."""
        if self._metrics is None or self._progress is None:
            return
        row: dict[str, Any] = {
            "epoch": round(epoch, 6),
            "eval_loss": stats.loss,
            "eval_seconds": seconds,
            "eval_terms": _terms(stats.terms),
            "eval_sources": {name: _terms(terms) for name, terms in stats.sources.items()},
        }
        self._write(self._metrics, step, row)
        self._progress.advance(0, shown={"validation": f"{stats.loss:.4f}"})
        accuracy = ", ".join(f"{name} {term.accuracy:.1%} of tokens right" for name, term in stats.terms.items())
        best = " (best so far)" if is_best else ""
        log.info("step %d of %d: validation loss %.4f%s; %s", step, self._num_steps, stats.loss, best, accuracy)

    def rollouts(self, step: int, epoch: float, figures: Mapping[str, float | None], *, seconds: float) -> None:
        """Tell what playing came to after `step` steps."""
        if self._metrics is None or self._progress is None:
            return
        row = {f"eval_{name}": value for name, value in figures.items()}
        self._write(self._metrics, step, {"epoch": round(epoch, 6), **row, "eval_rollout_seconds": seconds})
        known = {name: value for name, value in figures.items() if value is not None}
        shown = {name: (f"{value:.1%}" if _is_success(name) else f"{value:.3g}") for name, value in known.items()}
        if "success" in shown:
            self._progress.advance(0, shown={"success": shown["success"]})
        told = ", ".join(f"{name} {text}" for name, text in shown.items() if not name.endswith(("_low", "_high")))
        log.info("step %d of %d: played in %.0f s: %s", step, self._num_steps, seconds, told)

    def plot(self) -> None:
        """Draw ``loss.png`` from all metrics so far."""
        if self._folder is not None:
            path = self._folder.path
            plot_loss(path / "metrics.jsonl", path / "loss.png")

    def _write(self, metrics: MetricsWriter, step: int, row: Mapping[str, Any]) -> None:
        try:
            metrics.write(step, row)
        except OSError as error:
            raise TrainError(
                f"cannot write {metrics.path}: {error.strerror}. All checkpoints are untouched: make room, then go on "
                "with --resume"
            ) from error
        if self._trackers is not None:
            self._trackers.log(step, dict(_flat(row)))


def _is_success(name: str) -> bool:
    """Return whether a figure is a success rate: of all, or of one environment (``success/shop``)."""
    return name.partition("/")[0] == "success"


def _terms(terms: Mapping[str, TermStats]) -> dict[str, dict[str, float]]:
    return {
        name: {"loss": term.loss, "perplexity": term.perplexity, "accuracy": term.accuracy, "weight": term.weight}
        for name, term in terms.items()
    }


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of nested metrics under names joined by ``/``."""
    out: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            out.extend(_flat(value, f"{prefix}{name}/"))
        elif isinstance(value, int | float):
            out.append((f"{prefix}{name}", value))
    return out
