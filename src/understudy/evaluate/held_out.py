"""Held-out loss and perplexity: rendered, weighed and computed by the very code of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.config import Component
from understudy.errors import ConfigError
from understudy.formats import read_episodes
from understudy.train.config import ModelSection, TrainConfig, TrainSection
from understudy.train.data import EpisodeSource
from understudy.train.data_config import DataSection
from understudy.types import Episode

from .config import EvaluateConfig, LossSection
from .fingerprint import local_model

if TYPE_CHECKING:
    from understudy.train.inputs import RunInputs
    from understudy.train.stats import StepStats

SOURCE = "loss.data_path"


@dataclass(frozen=True, slots=True)
class TermLoss:
    """One term's figures: `loss` in nats per token (per unit of weight), `perplexity` its exponential, `accuracy` the
    share of weight whose token had the largest logit."""

    loss: float
    perplexity: float
    accuracy: float
    weight: float


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The loss of one model on rows.

    Args:
        model: its name.
        loss: as training has it: the terms' losses times their coefficients.
        num_episodes, num_turns, num_tokens: what was measured; tokens are those with a loss.
        num_left_out: turns that were refused or too long.
        data_fingerprint: equal for equal rows, rendered alike: only such losses may be compared.
    """

    model: str
    loss: float
    terms: dict[str, TermLoss]
    num_episodes: int
    num_turns: int
    num_tokens: int
    num_left_out: int
    data_fingerprint: str


def models_to_measure(config: EvaluateConfig) -> list[str]:
    """Return the models whose loss is wanted: the one under test first, then the baseline's.

    Raises:
        ConfigError: it cannot be told which model is meant.
    """
    if config.loss is None:
        return []
    tested = config.loss.model or local_model(config.policy)
    if tested is None:
        raise ConfigError("loss.model: name the model to measure; policy is none that runs on this machine (local)")
    before = local_model(config.baseline) if isinstance(config.baseline, Component) else None
    return [tested] if before in (None, tested) else [tested, before]


def measure_loss(config: LossSection, name: str) -> HeldOutLoss:
    """Measure one model.

    Raises:
        ConfigError: the model cannot be loaded.
        DataError, RenderError: a row cannot be read, rendered, or is too long.
        TrainError: the model cannot be measured.
    """
    from understudy.models.trained import load_trained, model_folder
    from understudy.train.distributed import training_device
    from understudy.train.inputs import prepare_inputs
    from understudy.train.measure import measure

    folder = model_folder(name)
    inputs = prepare_inputs(_as_training(config, folder), [_source(config)], base=folder, tokenizer=folder)
    device = training_device(config.device)
    model = load_trained(folder, dtype=config.dtype, device=device, trust_remote_code=config.trust_remote_code)
    return _result(name, inputs, measure(inputs, model))


def _source(config: LossSection) -> EpisodeSource:
    paths = [config.data_path] if isinstance(config.data_path, str) else list(config.data_path)
    reader = read_episodes(paths, config.format)

    def episodes() -> Iterator[tuple[str, Episode]]:
        for number, episode in enumerate(reader):
            if number == config.max_samples:
                return
            yield reader.place, episode

    return EpisodeSource(SOURCE, episodes(), held_out=True)


def _as_training(config: LossSection, folder: str) -> TrainConfig:
    """Return the settings under which training has the same loss."""
    return TrainConfig(
        output_dir="",
        model=ModelSection(path=folder, trust_remote_code=config.trust_remote_code),
        data=DataSection(max_length=config.max_length, max_length_policy=config.max_length_policy),
        rendering=config.rendering,
        objective=config.objective,
        train=TrainSection(max_tokens_per_batch=config.max_tokens_per_batch, device=config.device),
    )


def _result(name: str, inputs: RunInputs, stats: StepStats) -> HeldOutLoss:
    (report,) = inputs.data.reports
    terms = {
        term: TermLoss(found.loss, found.perplexity, found.accuracy, found.weight)
        for term, found in stats.terms.items()
    }
    return HeldOutLoss(
        model=name,
        loss=stats.loss,
        terms=terms,
        num_episodes=report.num_episodes,
        num_turns=report.num_turns,
        num_tokens=report.num_targets,
        num_left_out=report.num_refused + report.lengths.num_dropped_spans,
        data_fingerprint=inputs.data.fingerprint,
    )
