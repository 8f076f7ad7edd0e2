"""An evaluation from config to report: collect on held-out tasks, score, compare, write down.

The folder is a run folder. Episodes are collected into ``episodes/``, and those of a baseline that is a policy into
``baseline/``, by the same code as any collection. So an evaluation that was interrupted goes on where it was, and one
that is done is only scored again. ``report.json`` has all figures, ``report.html`` shows them with the episodes.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.collect import CollectConfig, collect, prepare
from understudy.collect.fingerprint import fingerprint_models, folder_of_play
from understudy.formats import read_episodes
from understudy.runs import write_atomically

from .config import EvaluateConfig
from .earlier import EPISODES, check_earlier, earlier_episodes, earlier_label, label_of
from .findings import Findings, Side
from .held_out import HeldOutLoss, measure_loss
from .measured import check_measured, models_to_measure
from .pairing import PairedScores, compare
from .predictions import Predictions, measure_predictions
from .report import Difference, differences, html_report, json_report
from .scores import Scores, outcome_of, score, task_id

if TYPE_CHECKING:
    from rich.console import Console

BASELINE = "baseline"
JSON_REPORT = "report.json"
HTML_REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """What an evaluation found. What was not asked for is None, or empty.

    Args:
        path: its folder.
        json_path, html_path: the reports.
        label, baseline_label: what policy and baseline are called.
        metrics: scores of the policy.
        baseline: scores of the baseline, over all that it played.
        comparison: policy minus baseline, task by task.
        differences: the same in words.
        losses: held-out losses: those of the policies' models, then the baseline's.
        predictions: what world models predicted, likewise.
        num_errors: episodes played here that a fault ended; the next start plays them again.
    """

    path: Path
    json_path: Path
    html_path: Path
    label: str | None
    baseline_label: str | None
    metrics: Scores | None
    baseline: Scores | None
    comparison: PairedScores | None
    differences: tuple[Difference, ...]
    losses: tuple[HeldOutLoss, ...]
    predictions: tuple[Predictions, ...]
    num_errors: int


def evaluate(config: EvaluateConfig, *, overwrite: bool = False, console: Console | None = None) -> EvaluateResult:
    """Evaluate as a config says, or go on with what its folder holds.

    Args:
        overwrite: delete what the folder holds, and start.
        console: where progress is shown; stderr by default.

    Raises:
        ConfigError: a component cannot be made, there are too few tasks, the folder holds another evaluation or one of
            other weights, or the baseline played other tasks.
        CollectError: episode after episode ended by a fault.
        DataError, RenderError: the rows of the held-out loss cannot be measured.
    """
    check_evaluation(config, overwrite=overwrite)
    with folder_of_play(config, config.output_dir, config.components, overwrite=overwrite) as folder:
        findings = _find(config, folder.path, console)
        return _write(findings, folder.path)


def check_evaluation(config: EvaluateConfig, *, overwrite: bool = False) -> None:
    """Refuse what cannot work before anything is played or made.

    Args:
        overwrite: what the folder holds does not matter.

    Raises:
        ConfigError: as `evaluate`.
    """
    check_measured(config)
    if not overwrite:
        fingerprint_models(config.output_dir, config.components)
    if config.environment is None:
        return
    for collection, _ in _collections(config):
        with closing(prepare(collection, overwrite=overwrite)[0]) as plan:
            if isinstance(config.baseline, str):
                check_earlier(config, config.baseline, {task_id(play.task, play.seed) for play in plan})


def _collections(config: EvaluateConfig) -> list[tuple[CollectConfig, str]]:
    """Return what is to be collected, each with what its progress is called."""
    assert config.environment is not None
    sides = {EPISODES: (config.policy, config.policies, "playing")}
    if config.plays_baseline:
        sides[BASELINE] = (*config.before, "playing the baseline")
    return [
        (
            CollectConfig(
                environment=config.environment,
                policy=policy,
                policies=policies,
                split=config.split,
                num_episodes=None if config.num_tasks is None else config.num_tasks * config.samples_per_task,
                samples_per_task=config.samples_per_task,
                max_turns=config.max_turns,
                seed=config.seed,
                output_dir=str(Path(config.output_dir) / name),
                concurrency=config.concurrency,
                episode_timeout_seconds=config.episode_timeout_seconds,
                stop_after_errors=config.stop_after_errors,
            ),
            label,
        )
        for name, (policy, policies, label) in sides.items()
    ]


def _find(config: EvaluateConfig, folder: Path, console: Console | None) -> Findings:
    """Play what is missing, and score it."""
    sides: list[Side] = []
    if config.environment is not None:
        for collection, label in _collections(config):
            episodes = collect(collection, console=console, label=label).path
            sides.append(_side(config, label_of(collection.policy, collection.policies), episodes))
        if isinstance(config.baseline, str):
            sides.append(_side(config, earlier_label(config.baseline), earlier_episodes(config.baseline)))
    policy, baseline = (*sides, None, None)[:2]
    comparison = None
    if policy is not None and baseline is not None:
        comparison = compare(baseline.outcomes, policy.outcomes, confidence=config.confidence)
    losses, predictions = _measure(config, console)
    return Findings(config, policy, baseline, comparison, losses, predictions)


def _measure(
    config: EvaluateConfig, console: Console | None
) -> tuple[tuple[HeldOutLoss, ...], tuple[Predictions, ...]]:
    """Measure models on rows, as far as that is asked for."""
    losses: list[HeldOutLoss] = []
    predictions: list[Predictions] = []
    if (loss := config.loss) is not None:
        losses = [measure_loss(loss, one) for one in models_to_measure(config, loss)]
    if (section := config.world_model) is not None:
        predictions = [
            measure_predictions(section, one, confidence=config.confidence, console=console)
            for one in models_to_measure(config, section)
        ]
    return tuple(losses), tuple(predictions)


def _side(config: EvaluateConfig, label: str, episodes: Path) -> Side:
    outcomes = tuple(outcome_of(episode) for episode in read_episodes(str(episodes)))
    return Side(label, episodes, outcomes, score(outcomes, k=config.pass_at, confidence=config.confidence))


def _write(findings: Findings, folder: Path) -> EvaluateResult:
    json_path, html_path = folder / JSON_REPORT, folder / HTML_REPORT
    report = json.dumps(json_report(findings), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(json_path, report + "\n")
    write_atomically(html_path, html_report(findings))
    policy, baseline = findings.policy, findings.baseline
    played = [side for side in (policy, baseline) if side is not None and side.episodes.is_relative_to(folder)]
    return EvaluateResult(
        path=folder,
        json_path=json_path,
        html_path=html_path,
        label=policy.label if policy is not None else None,
        baseline_label=baseline.label if baseline is not None else None,
        metrics=policy.scores if policy is not None else None,
        baseline=baseline.scores if baseline is not None else None,
        comparison=findings.comparison,
        differences=tuple(differences(findings)),
        losses=findings.losses,
        predictions=findings.predictions,
        num_errors=sum(side.scores.num_errors for side in played),
    )
