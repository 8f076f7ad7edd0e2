"""Held-out loss and perplexity: rendered, weighed and computed by the very code of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.train.config import ModelSection, TrainConfig, TrainSection
from understudy.train.data_config import DataSection

from .config import LossSection
from .measured import Measured, label_of_measured

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
        agents: whose trajectories were measured; None for all that it plays.
        loss: as training has it: the terms' losses times their coefficients.
        num_episodes, num_turns, num_tokens: what was measured; tokens are those with a loss.
        num_left_out: turns that were refused or too long.
        data_fingerprint: equal for equal rows, rendered alike: only such losses may be compared.
    """

    model: str
    agents: tuple[str, ...] | None
    loss: float
    terms: dict[str, TermLoss]
    num_episodes: int
    num_turns: int
    num_tokens: int
    num_left_out: int
    data_fingerprint: str

    @property
    def label(self) -> str:
        """What it is called in reports."""
        return label_of_measured(self.model, self.agents)


def measure_loss(config: LossSection, measured: Measured, name: str = SOURCE) -> HeldOutLoss:
    """Measure one model.

    Args:
        name: what the rows are called in messages.

    Raises:
        ConfigError: the model cannot be loaded.
        DataError, RenderError: a row cannot be read, rendered, or is too long.
        TrainError: the model cannot be measured.
    """
    from understudy.models.trained import load_trained, model_folder
    from understudy.train.distributed import training_device
    from understudy.train.inputs import prepare_inputs
    from understudy.train.measure import measure

    folder = model_folder(measured.model)
    rows = measured.source(config, name)
    inputs = prepare_inputs(_as_training(config, folder), [rows], base=folder, tokenizer=folder)
    device = training_device(config.device)
    model = load_trained(folder, dtype=config.dtype, device=device, trust_remote_code=config.trust_remote_code)
    return _result(measured, inputs, measure(inputs, model))


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


def _result(measured: Measured, inputs: RunInputs, stats: StepStats) -> HeldOutLoss:
    (report,) = inputs.data.reports
    terms = {
        term: TermLoss(found.loss, found.perplexity, found.accuracy, found.weight)
        for term, found in stats.terms.items()
    }
    return HeldOutLoss(
        model=measured.model,
        agents=measured.agents,
        loss=stats.loss,
        terms=terms,
        num_episodes=report.num_episodes,
        num_turns=report.num_turns,
        num_tokens=report.num_targets,
        num_left_out=report.num_refused + report.lengths.num_dropped_spans,
        data_fingerprint=inputs.data.fingerprint,
    )
