"""Running a loop: iterations one after the other, each a run of the same stages in a folder of its own.

Before anything heavy starts, the loop's config and all iterations that have begun are checked. A killed loop goes on at
its stage by the same command: which iteration is the best, and whether to stop early, is read from the folders.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.collect.collection import agents_of
from understudy.config import read_document
from understudy.errors import ConfigError
from understudy.models.export import FINAL

from .config import RunConfig
from .history import History, read_history
from .iterations import HELD_OUT, held_out_config, iteration_config, iteration_folder, trained_model
from .loop_report import write_report
from .markers import FOLDER as MARKERS
from .pipeline import PlannedStage, RunResult, StageOutcome, markers_of, open_folder, plan, run_stages
from .stages import CollectStage, CurateStage, EvaluateStage

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("understudy.run")


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How a loop ended.

    Args:
        folder: its folder.
        iterations: the stages of each iteration that was begun, in order.
        history: what they came to; None where not even the first is done.
        held_out: the evaluation of the best model; None where there is none.
        is_complete: nothing is left to do; else the same run goes on with it.
    """

    folder: Path
    iterations: tuple[RunResult, ...]
    history: History | None
    held_out: RunResult | None
    is_complete: bool


def run_loop(
    config: RunConfig,
    *,
    overwrite: bool = False,
    start_from: str | None = None,
    start_iteration: int | None = None,
    console: Console | None = None,
) -> LoopResult:
    """Run all iterations of a config that are not done yet, and evaluate the best model.

    Args:
        overwrite: delete what the folder holds, and start.
        start_from: a stage of `start_iteration` that is done anew, with all that follow it.
        start_iteration: an iteration that is done anew, with all that follow it.
        console: where progress is shown; stderr by default.

    Raises:
        ConfigError: something in the config is wrong, or an iteration was done with other settings or on other files.
        KeyboardInterrupt: it was interrupted; the same call goes on.
        UnderstudyError: as the stages' own commands.
    """
    plan_loop(config, overwrite=overwrite, start_from=start_from, start_iteration=start_iteration)
    with open_folder(config, overwrite=overwrite):
        if start_iteration is not None:
            _discard(config, start_iteration, whole=start_from is None)
        return _run(config, start_from, start_iteration, console)


def plan_loop(
    config: RunConfig, *, overwrite: bool = False, start_from: str | None = None, start_iteration: int | None = None
) -> list[tuple[RunConfig, list[PlannedStage]]]:
    """Check everything, and return each iteration that has begun, and the one after, with how far its stages are.

    Raises:
        UnderstudyError: as `run_loop`.
    """
    assert config.iterations is not None
    if start_from is not None and start_iteration is None:
        raise ConfigError(f"--from {start_from}: this run has iterations, so say in which: --from-iteration N")
    if start_iteration is not None and not 1 <= start_iteration <= config.iterations:
        raise ConfigError(f"--from-iteration {start_iteration}: they are numbered from 1 to {config.iterations}")
    _check_folder(config, overwrite=overwrite)
    _check_has_learner(config)
    planned = []
    for number in range(1, config.iterations + 1):
        one = iteration_config(config, number)
        is_first_anew = number == start_iteration
        has_begun = (Path(one.output_dir) / "config.yaml").is_file() and not overwrite
        if number > 1 and not (has_begun and (start_iteration is None or number <= start_iteration)):
            _check_unbegun(one)
            break
        anew = overwrite or (is_first_anew and start_from is None)
        try:
            stages = plan(one, overwrite=anew, start_from=start_from if is_first_anew else None)
        except ConfigError as error:
            if not has_begun:
                raise
            raise ConfigError(f"iteration {number}: {error} (in this run together with --from-iteration N)") from error
        planned.append((one, stages))
        if is_first_anew:
            break
    if config.evaluate is not None:
        EvaluateStage(held_out_config(config, 1).evaluate).check()  # type: ignore[arg-type]
    return planned


def _check_folder(config: RunConfig, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else than a loop.

    Raises:
        ConfigError: says what it holds.
    """
    folder = Path(config.output_dir)
    path = folder / "config.yaml"
    if overwrite or not path.is_file():
        return
    if not set(read_document(path).value) <= set(RunConfig.model_fields):
        raise ConfigError(f"{folder}: holds the run of another command; name another output_dir")
    if (folder / MARKERS).exists():
        raise ConfigError(f"{folder}: holds a run without iterations; name another output_dir")


def _check_has_learner(config: RunConfig) -> None:
    """Refuse a loop in which others play every agent.

    Raises:
        ConfigError: names the agents.
    """
    assert config.collect is not None
    agents = agents_of(config.collect.environment)
    if all(agent in config.collect.policies for agent in agents):
        raise ConfigError(
            f"collect.policies: names who plays {', '.join(agents)} throughout, so the model would never play; leave "
            "one out"
        )


def _check_unbegun(config: RunConfig) -> None:
    """Check of an iteration what can be told before those before it are done."""
    if config.collect is not None:
        CollectStage(config.collect).check()
    if config.curate is not None:
        CurateStage(config.curate, reads_earlier=True).check()


def _discard(config: RunConfig, first: int, *, whole: bool) -> None:
    """Delete iterations and what came after them, the last one first.

    Args:
        first: the first that is done anew.
        whole: delete it too, and not only those after it.
    """
    folder = Path(config.output_dir)
    numbered = sorted(folder.glob("iteration_*"), key=lambda path: int(path.name.partition("_")[2]), reverse=True)
    last_kept = first - 1 if whole else first
    for doomed in [folder / HELD_OUT, *(path for path in numbered if int(path.name.partition("_")[2]) > last_kept)]:
        if doomed.exists():
            away = doomed.with_name(f".deleted-{doomed.name}")
            shutil.rmtree(away, ignore_errors=True)
            doomed.rename(away)
            shutil.rmtree(away)


def _run(config: RunConfig, start_from: str | None, start_iteration: int | None, console: Console | None) -> LoopResult:
    folder = Path(config.output_dir)
    results: list[RunResult] = []
    history: History | None = None
    for number, one in _iterations(config):
        results.append(_run_iteration(config, number, one, start_from if number == start_iteration else None, console))
        if not _is_complete(results[-1]):
            return LoopResult(folder, tuple(results), history, None, False)
        history = read_history(config, number)
        _put_best_first(config, history.best)
        write_report(config, history)
        if history.is_early:
            log.info("stopping early: the last iterations were no better than iteration %d", history.best)
            break
    assert history is not None
    if config.evaluate is None:
        return LoopResult(folder, tuple(results), history, None, True)
    held_out = _evaluate_best(config, history.best, console)
    if _is_complete(held_out):
        history = read_history(config, len(results), with_held_out=True)
        write_report(config, history)
    return LoopResult(folder, tuple(results), history, held_out, _is_complete(held_out))


def _iterations(config: RunConfig) -> Iterator[tuple[int, RunConfig]]:
    assert config.iterations is not None
    for number in range(1, config.iterations + 1):
        yield number, iteration_config(config, number)


def _run_iteration(
    config: RunConfig, number: int, one: RunConfig, start_from: str | None, console: Console | None
) -> RunResult:
    """Run an iteration; one that is done is left untouched."""
    label = f"iteration {number}/{config.iterations}"
    if (Path(one.output_dir) / "config.yaml").is_file() and start_from is None:
        planned = plan(one)
        if all(stage.state == "done" for stage in planned):
            found = _done_before(one, planned)
            log.info("%s: done before: %s", label, found.stages[-1].summary)
            return found
    return run_stages(one, start_from=start_from, console=console, label=f"{label}, ")


def _done_before(config: RunConfig, planned: list[PlannedStage]) -> RunResult:
    markers = markers_of(config)
    outcomes = []
    for one in planned:
        marker = markers.read(one.stage.name)
        outcomes.append(StageOutcome(one.stage, None, marker.summary if marker is not None else "", 0.0))
    return RunResult(Path(config.output_dir), tuple(outcomes))


def _is_complete(result: RunResult) -> bool:
    return all(outcome.is_complete for outcome in result.stages)


def _put_best_first(config: RunConfig, best: int) -> None:
    """Let ``final`` in the loop's folder be the best model: a link, which a moved folder keeps."""
    link = Path(config.output_dir) / FINAL
    target = os.path.relpath(trained_model(config, best), link.parent)
    temporary = link.with_name(f".{FINAL}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _evaluate_best(config: RunConfig, best: int, console: Console | None) -> RunResult:
    """Let the best model play the tasks that nothing was chosen by; an evaluation of another one goes."""
    one = held_out_config(config, best)
    path = Path(one.output_dir) / "config.yaml"
    player = (read_document(path).value.get("previous") or {}).get("player") if path.is_file() else None
    is_other = player is not None and _number_of(player) != best
    log.info("iteration %d is the best: %s", best, iteration_folder(config, best))
    return run_stages(one, overwrite=is_other, console=console, label="best model, ")


def _number_of(model: str) -> int:
    """Return the iteration that a model is of."""
    return int(Path(model).parts[-3].partition("_")[2])
