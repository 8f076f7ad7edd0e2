"""The stages of a run: what each checks before anything starts, what it reads, does and leaves.

A stage does nothing of its own: it calls what its command calls, with the same config, in the same folder. So each can
also be run alone, by `understudy STAGE OUT/STAGE/config.yaml`.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from understudy.api.datasets import open_sources
from understudy.api.train import TINY_BASE, check_training, train
from understudy.collect import CollectConfig, CollectResult, collect, prepare
from understudy.collect.config import CHANGEABLE
from understudy.collect.fingerprint import models_played
from understudy.config import ConfigModel
from understudy.curate import CurateConfig, CurateResult, EpisodeStatistics, curate
from understudy.curate.augment import make_augmentations
from understudy.curate.hindsight import relabelling_environment
from understudy.errors import ConfigError, did_you_mean
from understudy.evaluate import EvaluateConfig, EvaluateResult, Scores, check_evaluation, evaluate
from understudy.formats import list_files
from understudy.models.export import FINAL
from understudy.models.tiny import architectures
from understudy.train.config import TrainConfig
from understudy.train.resume import may_change

from .config import RunConfig

if TYPE_CHECKING:
    from rich.console import Console

    from understudy.train.run import TrainResult

Config = TypeVar("Config", bound=ConfigModel)
Result = TypeVar("Result")
Found = TypeVar("Found")


class StageInterrupted(KeyboardInterrupt):
    """A stage was stopped by a signal after it had saved what was done."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.signal = received


class Stage(ABC, Generic[Config, Result]):
    """One stage of a run.

    Args:
        config: of the stage's command.
        reads_earlier: what it reads comes from a stage before, so it cannot be looked at yet.
    """

    name: ClassVar[str]

    def __init__(self, config: Config, *, reads_earlier: bool = False) -> None:
        self.config = config
        self.reads_earlier = reads_earlier

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self.config.output_dir)  # type: ignore[attr-defined]

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot work, as far as it can be told before the stages before have run.

        Raises:
            UnderstudyError: as the stage's command.
        """

    @abstractmethod
    def inputs(self) -> list[str]:
        """Return the files that it reads."""

    @abstractmethod
    def run(self, console: Console | None) -> Result:
        """Do it, or go on with it where it was interrupted."""

    @abstractmethod
    def outputs(self, result: Result) -> list[Path]:
        """Return what it leaves: without these it is not done."""

    @abstractmethod
    def summary(self, result: Result) -> str:
        """Say in one line what came of it."""

    def is_complete(self, result: Result) -> bool:
        """Return whether nothing of it is left to do."""
        return True

    def may_change(self, key: str, *, is_done: bool) -> bool:
        """Return whether a stage that has begun can take up another value of a key."""
        return False


class CollectStage(Stage[CollectConfig, CollectResult]):
    """Lets a policy play."""

    name = "collect"

    def check(self) -> None:
        plan, _ = prepare(self.config, overwrite=True)
        plan.close()

    def inputs(self) -> list[str]:
        return []

    def run(self, console: Console | None) -> CollectResult:
        return collect(self.config, statistics=EpisodeStatistics, console=console)

    def outputs(self, result: CollectResult) -> list[Path]:
        return [result.path, result.stats_path]

    def summary(self, result: CollectResult) -> str:
        text = f"{result.num_episodes:,} episodes"
        if result.num_known:
            text += f", {result.num_successes / result.num_known:.1%} of {result.num_known:,} successful"
        if result.num_errors:
            text += f", {result.num_errors:,} ended by a fault (see {result.stats_path})"
        return text

    def may_change(self, key: str, *, is_done: bool) -> bool:
        return key in CHANGEABLE


class CurateStage(Stage[CurateConfig, CurateResult]):
    """Chooses what to train on."""

    name = "curate"

    def check(self) -> None:
        if not self.reads_earlier:
            self.inputs()
        if self.config.hindsight:
            relabelling_environment(self.config)
        make_augmentations(self.config.augment)
        if self.config.model is not None:
            from understudy.rendering import load_tokenizer

            load_tokenizer(self.config.model)

    def inputs(self) -> list[str]:
        paths = (self.config.replay_path, self.config.path)
        return [file for path in paths if path for file in list_files(path)]

    def run(self, console: Console | None) -> CurateResult:
        return curate(self.config, overwrite=True)

    def outputs(self, result: CurateResult) -> list[Path]:
        return [result.train] + ([result.validation] if result.validation is not None else [])

    def summary(self, result: CurateResult) -> str:
        text = f"{result.num_train:,} of {result.num_read:,} episodes to train on"
        text += f" ({result.num_relabelled:,} added in hindsight)" if result.num_relabelled else ""
        text += f" and {result.num_augmented:,} copies" if result.num_augmented else ""
        if result.validation is not None:
            text += f", {result.num_validation:,} held out"
        reasons = [f"{count:,} {why}" for rule in result.rules for why, count in rule.reasons.items()]
        return text + (f"; left out: {', '.join(reasons)}" if reasons else "")


class TrainStage(Stage[TrainConfig, "TrainResult"]):
    """Trains a model."""

    name = "train"

    def check(self) -> None:
        for config in self.config.by_policy().values():
            self._check(config)

    def _check(self, config: TrainConfig) -> None:
        from understudy.train.setup import make_objective, make_renderer

        check_training(config, () if self.reads_earlier else open_sources(config.data))
        objective, model = make_objective(config.objective), config.model
        if model.path is not None:
            make_renderer(config.rendering, model, model.tokenizer or model.path, objective)
        elif model.tiny not in architectures():
            known = ", ".join(architectures())
            near = did_you_mean(str(model.tiny), architectures())
            raise ConfigError(f"train.model.tiny: unknown architecture {model.tiny!r}.{near} Known: {known}")

    def inputs(self) -> list[str]:
        data = self.config.data
        paths = [source.path for source in data.by_name().values()]  # a store changes whenever a run claims its rows
        files = [file for path in [*paths, data.validation_path] if path is not None for file in list_files(path)]
        models = {config.model for config in self.config.by_policy().values()}
        more = [name for model in models for name in (model.path, model.tokenizer) if name is not None]
        more += [self.config.rendering.chat_template] if self.config.rendering.chat_template is not None else []
        return [*files, *(file for path in sorted(set(more)) for file in _model_files(path))]

    def run(self, console: Console | None) -> TrainResult:
        result = train(self.config)
        if result.signal is not None:
            raise StageInterrupted(result.signal)
        return result

    def outputs(self, result: TrainResult) -> list[Path]:
        made = []
        for config in self.config.by_policy().values():
            folder = Path(config.output_dir)
            made += [folder / FINAL, *([] if config.model.path is not None else [folder / TINY_BASE])]
        return made

    def summary(self, result: TrainResult) -> str:
        if result.policies:
            return "; ".join(f"{name}: {self.summary(one)}" for name, one in result.policies.items())
        text = f"{result.step:,} of {result.num_steps:,} steps"
        text += ", early: the validation loss no longer fell" if result.is_early else ""
        if result.best_loss is not None:
            text += f", lowest validation loss {result.best_loss:.4f} after step {result.best_step:,}"
        return text

    def may_change(self, key: str, *, is_done: bool) -> bool:
        return not is_done and may_change(key)


class EvaluateStage(Stage[EvaluateConfig, EvaluateResult]):
    """Lets the model play held-out tasks, before and after."""

    name = "evaluate"

    def check(self) -> None:
        check_evaluation(self.config, overwrite=True)

    def inputs(self) -> list[str]:
        config = self.config
        measured = [section for section in (config.loss, config.world_model) if section is not None]
        models = models_played(config.components) + [section.model for section in measured if section.model is not None]
        files = [file for model in dict.fromkeys(models) for file in _model_files(model)]
        files += list_files(config.baseline) if isinstance(config.baseline, str) else []
        return files + [file for section in measured for file in list_files(section.data_path)]

    def run(self, console: Console | None) -> EvaluateResult:
        return evaluate(self.config, console=console)

    def outputs(self, result: EvaluateResult) -> list[Path]:
        return [result.json_path, result.html_path]

    def summary(self, result: EvaluateResult) -> str:
        parts = []
        if result.metrics is not None:
            parts.append(f"success {_percent(result.metrics)}" + _before(result.baseline, _percent))
        losses: dict[tuple[str, ...] | None, list[str]] = {}
        for found in result.losses:
            losses.setdefault(found.agents, []).append(f"{found.loss:.4f}")
        for agents, (tested, *others) in losses.items():
            whose = f" of {', '.join(agents)}" if agents is not None else ""
            parts.append(f"held-out loss{whose} {tested}" + _before(others[0] if others else None, str))
        if result.predictions:
            exact = result.predictions[0].exact
            parts.append(f"{exact.value:.1%} of {exact.num_samples:,} observations predicted exactly")
        if result.num_errors:
            parts.append(f"{result.num_errors:,} episodes ended by a fault: the same command plays them again")
        return ", ".join(parts)

    def is_complete(self, result: EvaluateResult) -> bool:
        return result.num_errors == 0


AnyStage = Stage[Any, Any]


def make_stages(config: RunConfig) -> list[AnyStage]:
    """Return the stages of a run in order."""
    there = config.stages
    stages: list[AnyStage] = []
    if config.collect is not None:
        stages.append(CollectStage(config.collect))
    if config.curate is not None:
        stages.append(CurateStage(config.curate, reads_earlier="collect" in there))
    if config.train is not None:
        stages.append(TrainStage(config.train, reads_earlier="collect" in there or "curate" in there))
    if config.evaluate is not None:
        stages.append(EvaluateStage(config.evaluate))
    return stages


def _percent(scores: Scores) -> str:
    return "unknown" if scores.success is None else f"{scores.success.value:.1%}"


def _before(found: Found | None, text: Callable[[Found], str]) -> str:
    return "" if found is None else f" (before: {text(found)})"


def _model_files(path: str) -> list[str]:
    """Return the files of a model folder, or the file itself; none for a name of the hub."""
    place = Path(path)
    if place.is_file():
        return [path]
    return sorted(str(file) for file in place.rglob("*") if file.is_file()) if place.is_dir() else []
