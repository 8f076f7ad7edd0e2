"""The config of what repeats: how iterations go on from each other, and what they were given of those before."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from understudy.config import Component, ConfigModel
from understudy.train.data_config import Paths


class LoopSection(ConfigModel):
    """How iterations go on from each other. Each is a run of its own in `iteration_01`, `iteration_02`, …: it collects
    with the model of the one before, curates that together with what was kept before, trains, and evaluates."""

    policy: Component = Component(name="local")
    """Who plays the model once there is one, with its folder as the argument `model`: by default policy `local`, asked
    as the model is trained. Arguments such as temperature and max_new_tokens go here; your own may start a server. The
    first iteration is played by `collect.policy`; without that, by the model that training starts from."""

    collect_every: int = Field(1, ge=1)
    """Collect in the first of every so many iterations; the others train on the same data again."""

    replay: bool = True
    """Train also on what earlier iterations kept: `curate` judges both together, and `curate.replay_buffer_size` bounds
    what is kept. Without it, each iteration trains on what it collected alone."""

    train_from: Literal["last", "first"] = "last"
    """Train on from the last iteration's model, or from the first one's beginning again."""

    beta: tuple[float, ...] = ()
    """For DAgger, where `collect.labeler` is given: `collect.beta` in the first iteration, the second, …; the last one
    holds for all that follow."""

    split: Literal["train", "validation", "test"] = "validation"
    """The tasks on which iterations are evaluated, and so chosen. The best model then plays those of `evaluate.split`,
    which nothing was chosen by."""

    metric: Literal["success", "reward"] = "success"
    """What the best iteration has the most of."""

    patience: int | None = Field(None, ge=1)
    """Stop after so many iterations in a row that were no better than the best before them; null for never."""

    min_improvement: float = Field(0.0, ge=0)
    """By how much an iteration must be better to count as better; 0.02 is two points of success."""

    @field_validator("beta")
    @classmethod
    def _shares(cls, beta: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= share <= 1 for share in beta):
            raise ValueError("give chances from 0 to 1, such as [1, 0.5, 0]")
        return beta

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if "model" in self.policy.arguments:
            raise ValueError("policy.arguments.model: which model plays is for the loop to say; leave it out")
        if self.min_improvement and self.patience is None:
            raise ValueError("min_improvement says what patience waits for; give patience")
        if self.collect_every > 1 and self.train_from == "first":
            raise ValueError("without new data, training from the first model gives the same again: collect_every: 1")
        return self


class DemonstrationsSection(ConfigModel):
    """Episodes that are mixed into what is trained on, whatever is collected: half expert data, half one's own."""

    path: Paths | None = None
    """File, folder or glob of rows, or a list of these. In a loop by default what the first iteration kept, where
    somebody else than the model played it."""

    format: str = "auto"
    """Format of the rows; see `data.format` of training."""

    share: float = Field(0.5, gt=0, lt=1)
    """Their share of the trajectories that are trained on; the rest is what was collected."""


class PreviousSection(ConfigModel):
    """What an iteration was given of those before it: places in their folders. A loop writes this."""

    player: str | None = None
    """The model that plays."""

    model: str | None = None
    """The model that training starts from."""

    replay: tuple[str, ...] = ()
    """What was kept before, the oldest first."""

    data: str | None = None
    """What is trained on where nothing is collected."""

    validation: str | None = None
    """What is validated on where nothing is collected."""

    evaluation: str | None = None
    """The evaluation that this one is compared with."""

    before: str | None = None
    """The model that an evaluation without training is compared with."""
