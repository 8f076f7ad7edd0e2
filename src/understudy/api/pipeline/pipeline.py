"""Running the stages of a run in order, each once.

Before anything heavy starts, every stage's config is checked, and held against what the stage's marker says it was
done with. Then each stage that is not done is run. A killed run goes on at its stage by the same command, because every
stage goes on where it was.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.config import config_from_dict, dump_document, load_config, read_document
from understudy.errors import ConfigError, did_you_mean
from understudy.runs import RunFolder, format_seconds
from understudy.train.launch import world_size
from understudy.train.resume import leaves

from .config import RunConfig
from .following import STAGES
from .markers import Marker, Markers, changed_files
from .stages import AnyStage, make_stages

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["new", "begun", "done"]

log = logging.getLogger("understudy.run")

AnyRunConfig = RunConfig | Mapping[str, Any] | str | Path


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage and how far it is.

    Args:
        state: ``new`` starts, ``begun`` goes on, ``done`` is left alone.
        changes: the settings that are not what they were, and for which it goes on.
        is_anew: what it has left is to be deleted first.
    """

    stage: AnyStage
    state: State
    changes: str = ""
    is_anew: bool = False


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """How a stage ended.

    Args:
        stage: the stage.
        result: what its command returns; None where it was done before.
        summary: what came of it, in one line.
        seconds: how long it took now.
        is_complete: nothing of it is left to do; else the same run goes on with it.
    """

    stage: AnyStage
    result: Any
    summary: str
    seconds: float
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its folder, and the outcome of each stage in order."""

    folder: Path
    stages: tuple[StageOutcome, ...]

    def outcome(self, name: str) -> StageOutcome | None:
        """Return the outcome of a stage; None where the run has no such stage."""
        return next((outcome for outcome in self.stages if outcome.stage.name == name), None)


def run_stages(
    config: RunConfig,
    *,
    overwrite: bool = False,
    start_from: str | None = None,
    console: Console | None = None,
    label: str = "",
) -> RunResult:
    """Run all stages of a config that are not done yet.

    Args:
        overwrite: delete what the folder holds, and start.
        start_from: a stage that is done anew, with all that follow it.
        console: where progress is shown; stderr by default.
        label: what stands before each stage in the log.

    Raises:
        ConfigError: something in the config is wrong, or a stage was done with other settings or on other files.
        KeyboardInterrupt: it was interrupted; the same call goes on.
        UnderstudyError: as the stages' own commands.
    """
    markers = markers_of(config)
    planned = plan(config, start_from=start_from, overwrite=overwrite)
    with open_folder(config, overwrite=overwrite, adopt=STAGES) as path:
        if start_from is not None:
            _discard(markers, [one.stage for one in planned if one.is_anew])
        outcomes = [
            _run_stage(one, f"{label}{number}/{len(planned)} {one.stage.name}", config, markers, console)
            for number, one in enumerate(planned, start=1)
        ]
    return RunResult(path, tuple(outcomes))


@contextlib.contextmanager
def open_folder(config: RunConfig, *, overwrite: bool, adopt: Sequence[str] = ()) -> Iterator[Path]:
    """Hold a run's folder while something is done in it, and write down how that ended."""
    folder = RunFolder.open(
        config.output_dir,
        config=dump_document(config.own()),
        resume=not overwrite,
        overwrite=overwrite,
        adopt=adopt,
    )
    try:
        yield folder.path
    except BaseException as error:
        folder.fail(error)
        raise
    folder.close("finished")


def markers_of(config: RunConfig) -> Markers:
    """Return the markers of a run's stages. An iteration reads what lies beside it, and is moved with that."""
    folder = Path(config.output_dir)
    return Markers(folder, folder.parent if config.previous is not None else None)


def read_run_config(config: AnyRunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """Return a checked config, with what follows filled in.

    Raises:
        ConfigError: all that is wrong with it.
    """
    if isinstance(config, str | Path):
        return load_config(RunConfig, config, overrides)
    if isinstance(config, RunConfig):
        if not overrides:
            return config
        config = config.own()
    return config_from_dict(RunConfig, config, overrides)


def plan(config: RunConfig, *, start_from: str | None = None, overwrite: bool = False) -> list[PlannedStage]:
    """Check every stage, and return how far each is. Nothing is written.

    Raises:
        UnderstudyError: as `run_stages`.
    """
    stages = make_stages(config)
    names = [stage.name for stage in stages]
    if start_from is not None and start_from not in names:
        near = did_you_mean(start_from, names)
        raise ConfigError(f"cannot start from {start_from!r}: this run has the stages {', '.join(names)}.{near}")
    if world_size() > 1:
        raise ConfigError(
            "a run is one process, but a launcher has started several; to train on several devices run the stages "
            "before training (train=null evaluate=null), then torchrun … understudy train, then understudy evaluate"
        )
    if not overwrite:
        _check_is_run(Path(config.output_dir))
    for stage in stages:
        stage.check()
    markers = markers_of(config)
    first_anew = 0 if overwrite else names.index(start_from) if start_from is not None else len(names)
    planned: list[PlannedStage] = []
    for number, stage in enumerate(stages):
        one = PlannedStage(stage, "new", is_anew=True) if number >= first_anew else _look_at(stage, config, markers)
        waiting = next((earlier for earlier in planned if earlier.state != "done"), None)
        if one.state != "new" and waiting is not None:
            raise ConfigError(
                f"{waiting.stage.name} is to go on{f' ({waiting.changes})' * bool(waiting.changes)}, but {stage.name} "
                f"has read what was there; --from {stage.name} does it anew, with what follows"
            )
        planned.append(one)
    return planned


def _check_is_run(folder: Path) -> None:
    """Refuse the folder of a single command or of a loop: its config must not be written over.

    Raises:
        ConfigError: it holds a config that is none of a run without iterations.
    """
    path = folder / "config.yaml"
    before = read_document(path).value if path.is_file() else {}
    if not set(before) <= set(RunConfig.model_fields):
        raise ConfigError(f"{folder}: holds the run of another command; name another output_dir")
    if before.get("iterations") is not None:
        raise ConfigError(f"{folder}: holds a run with iterations; give iterations, or name another output_dir")


def _look_at(stage: AnyStage, config: RunConfig, markers: Markers) -> PlannedStage:
    """Return how far a stage is.

    Raises:
        ConfigError: it has begun with other settings or on other files, or what it left has gone.
    """
    marker = markers.read(stage.name)
    if marker is None:
        return PlannedStage(stage, "new")
    done = "is done" if marker.is_done else "has begun"
    mend = f"--from {stage.name} does it anew, with what follows"
    before, now = (dict(leaves(settings)) for settings in (marker.settings, config.settings(stage.name)))
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changes = {key: f"{stage.name}.{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed}
    refused = [text for key, text in changes.items() if not stage.may_change(key, is_done=marker.is_done)]
    if refused:
        raise ConfigError(f"{'; '.join(refused)}. The stage {done}: set it back, or {mend}")
    gone = markers.missing(marker)
    if gone:
        raise ConfigError(f"the {stage.name} stage {done}, but {config.output_dir}/{gone[0]} has gone; {mend}")
    files = changed_files(marker.inputs, markers.read_files(stage.inputs(), marker.inputs))
    if files:
        raise ConfigError(f"what the {stage.name} stage read has changed: {', '.join(files)}; {mend}")
    state: State = "done" if marker.is_done and not changed else "begun"
    return PlannedStage(stage, state, "; ".join(changes.values()))


def _run_stage(
    planned: PlannedStage, place: str, config: RunConfig, markers: Markers, console: Console | None
) -> StageOutcome:
    """Run a stage unless it is done, with its marker written before and after."""
    stage, started = planned.stage, time.monotonic()
    before = markers.read(stage.name)
    if planned.state == "done" and before is not None:
        log.info("%s: done before: %s", place, before.summary)
        return StageOutcome(stage, None, before.summary, 0.0)
    log.info("%s: %s", place, _beginning(planned, config))
    known = before.inputs if before is not None else ()
    marker = Marker(False, config.settings(stage.name), markers.read_files(stage.inputs(), known))
    markers.write(stage.name, marker)
    result = stage.run(console)
    outputs = tuple(map(markers.name, stage.outputs(result)))
    summary, is_complete = stage.summary(result), stage.is_complete(result)
    if is_complete:
        markers.write(stage.name, replace(marker, is_done=True, outputs=outputs, summary=summary))
    seconds = time.monotonic() - started
    log.info("%s: %s; took %s", place, summary, format_seconds(seconds))
    return StageOutcome(stage, result, summary, seconds, is_complete)


def _beginning(planned: PlannedStage, config: RunConfig) -> str:
    """Say that a stage begins, with the places and the environment that it was given; `plan` knows the rest."""
    text = {"new": "starting", "begun": "going on", "done": "done"}[planned.state]
    folder = config.output_dir if config.previous is None else str(Path(config.output_dir).parent)
    given = [
        f"{key}={value}"
        for key, value in config.following(planned.stage.name).items()
        if key == "environment.name" or (isinstance(value, str) and value.startswith(folder))
    ]
    return ", ".join([text, *([planned.changes] if planned.changes else []), *given])


def _discard(markers: Markers, stages: Sequence[AnyStage]) -> None:
    """Delete what stages have left, the last one first.

    A folder loses its name before its marker goes, so a kill on the way leaves a stage that is known to be incomplete.
    """
    for stage in reversed(stages):
        doomed = stage.folder.with_name(f".deleted-{stage.folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        if stage.folder.exists():
            stage.folder.rename(doomed)
        markers.delete(stage.name)
        shutil.rmtree(doomed, ignore_errors=True)
