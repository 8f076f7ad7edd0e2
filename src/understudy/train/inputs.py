"""What a run is made of once its data is prepared: the same for training and for a dry run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.objectives import Objective
from understudy.rendering import Renderer
from understudy.runs import Progress

from .config import TrainConfig
from .data import EpisodeSource, PreparedData, SourceReport, prepare
from .setup import make_objective, make_renderer

log = logging.getLogger("understudy.train")

MAX_SHOWN_CONTROL_STRINGS = 5


@dataclass(frozen=True, slots=True)
class RunInputs:
    """A config with everything that is made before a model is loaded.

    Args:
        base: the model to start from: folder or hub name.
        tokenizer: folder or hub name of its tokenizer.
    """

    config: TrainConfig
    base: str
    tokenizer: str
    objective: Objective
    renderer: Renderer
    data: PreparedData

    def provenance(self) -> dict[str, Any]:
        """Return fingerprints and counts of what the run reads: JSON."""
        return {
            "base_model": self.base,
            "data_fingerprint": self.data.fingerprint,
            "rendering_fingerprint": self.renderer.fingerprint(),
            "tokenizer_fingerprint": self.renderer.tokenizer.fingerprint(),
            "sources": [_report_row(report) for report in self.data.reports],
        }


def prepare_inputs(
    config: TrainConfig, sources: Sequence[EpisodeSource], *, base: str, tokenizer: str, quiet: bool = False
) -> RunInputs:
    """Render and weigh all data, and say in the log what was left out.

    Args:
        quiet: show no progress and log nothing, on ranks that are not the main one.

    Raises:
        UnderstudyError: the data, the rendering or the objective cannot work.
    """
    objective = make_objective(config.objective)
    renderer = make_renderer(config.rendering, config.model, tokenizer, objective)
    seed = config.train.seed
    if quiet:
        data = prepare(sources, renderer, objective, config.data, seed=seed)
    else:
        with Progress("preparing", unit="episodes") as progress:
            data = prepare(sources, renderer, objective, config.data, seed=seed, on_episode=progress.advance)
        for report in data.reports:
            _log_report(report)
        for term in _terms_without_weight(objective, data):
            log.warning("no token of the training data has a weight in %s, so it trains nothing", term)
    return RunInputs(config, base, tokenizer, objective, renderer, data)


def _terms_without_weight(objective: Objective, data: PreparedData) -> list[str]:
    """Return the objective's terms that are wanted and that no example to train on has a token for."""
    examples = [example for source in data.train for example in source.examples]
    terms = enumerate(objective.coefficients.items())
    return [
        term
        for n, (term, coefficient) in terms
        if coefficient and examples and not any(example.weights[n].any() for example in examples)
    ]


def _log_report(report: SourceReport) -> None:
    is_trained = report.num_examples > 0
    to_train = f"{report.num_examples:,} trajectories to train on" if is_trained else ""
    held_out = f"{report.num_held_out:,} held out" if report.num_held_out else ""
    log.info(
        "%s: %s episodes -> %s; %s turns rendered exactly, %s tokens %s; %s tokens (%s as separate rows)",
        report.name,
        f"{report.num_episodes:,}",
        ", ".join(part for part in (to_train, held_out) if part),
        f"{report.num_turns:,}",
        f"{report.num_targets:,}",
        "trained" if is_trained else "measured",
        f"{report.num_tokens:,}",
        f"{report.num_row_tokens:,}",
    )
    lengths = report.lengths
    left_out = {
        "turns refused": (report.num_refused, ", ".join(f"{code} {n:,}" for code, n in report.refusals.items())),
        "trajectories dropped as too long": (lengths.num_dropped, ""),
        "trajectories cut at a turn": (lengths.num_cut, f"{lengths.num_dropped_spans:,} turns left out"),
        "trajectories of other agents or policies": (report.num_unselected, ""),
        "trajectories with nothing to train": (report.num_unsupervised, ""),
        "observations whose tokens could not be told apart": (report.num_unlocated, ""),
        "messages of the context that the chat template does not print": (report.num_dropped_context, ""),
        "trajectories whose tools the chat template does not print": (report.num_dropped_tools, ""),
        "messages with a control token written as text": (
            sum(report.control_strings.values()),
            ", ".join(text for text, _ in report.control_strings.most_common(MAX_SHOWN_CONTROL_STRINGS)),
        ),
    }
    for what, (count, detail) in left_out.items():
        if count:
            log.warning("%s: %s %s%s", report.name, f"{count:,}", what, f" ({detail})" if detail else "")


def _report_row(report: SourceReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "num_episodes": report.num_episodes,
        "num_trajectories": report.num_trajectories,
        "num_trajectories_by_agent": dict(report.agents),
        "num_examples": report.num_examples,
        "num_held_out": report.num_held_out,
        "num_turns": report.num_turns,
        "num_refused": report.num_refused,
        "refusals": dict(report.refusals),
        "num_dropped_too_long": report.lengths.num_dropped,
        "num_cut": report.lengths.num_cut,
        "num_unselected": report.num_unselected,
        "num_unsupervised": report.num_unsupervised,
        "num_unlocated_observations": report.num_unlocated,
        "num_dropped_context": report.num_dropped_context,
        "num_dropped_tools": report.num_dropped_tools,
        "num_tokens": report.num_tokens,
        "num_row_tokens": report.num_row_tokens,
        "num_trained_tokens": report.num_targets,
    }
