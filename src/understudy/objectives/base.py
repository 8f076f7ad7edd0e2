"""What an objective is: named terms, and for each term a weight for every token of a tree.

The loss of an optimiser step is ``sum over terms of coefficient * sum(weight * nll) / sum(|weight|)``: the plain mean
where no weight is negative. Coefficients hold for a whole run; weights are given example by example. Nothing here knows
about batches, tensors or devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, DataError
from understudy.types import JSON, Episode, Span, TokenTree, Trajectory
from understudy.types.fields import is_finite_number
from understudy.types.tokens import Ints

Weights = NDArray[np.float64]


class Objective(ABC):
    """Decides what each token weighs in the loss.

    Attributes:
        coefficients: each term's name and its factor in the loss, in the order in which terms are reported.
    """

    coefficients: Mapping[str, float]

    @abstractmethod
    def weigh(self, tree: TokenTree, trajectory: Trajectory, episode: Episode | None = None) -> dict[str, Weights]:
        """Return, for every term, the weight of each token: float64 [T].

        A token that several calls supervise gets the sum of their weights.

        Raises:
            DataError: a weight that the objective reads is missing or is not a number.
        """


def check_coefficients(coefficients: Mapping[str, float]) -> dict[str, float]:
    """Return the coefficients as a dict.

    Raises:
        ConfigError: one is negative or not finite, or all are zero.
    """
    for name, value in coefficients.items():
        if not np.isfinite(value) or value < 0:
            raise ConfigError(f"the weight of {name} is {value}: it must be a number that is not negative")
    if not any(coefficients.values()):
        raise ConfigError(f"all weights are zero ({', '.join(coefficients)}): there is nothing to train")
    return dict(coefficients)


def add_spans(tree: TokenTree, weighted: Iterable[tuple[Ints, float]]) -> Weights:
    """Return [T] the sum of the given weights on the tokens that each is given for."""
    weights = np.zeros(tree.num_tokens)
    for tokens, weight in weighted:
        weights[tokens] += weight
    return weights


@dataclass(frozen=True, slots=True)
class TurnWeights:
    """How a turn is weighed beside its own `Turn.weight`.

    Args:
        by: ``none``: 1. ``reward``: the trajectory's reward, or the episode's where the trajectory has none.
            ``turn_reward``: the turn's own. Any other name: that annotation of the turn, e.g. ``score``, ``advantage``.
    """

    by: str = "none"

    def of(self, span: Span, turn: int, trajectory: Trajectory, episode: Episode | None) -> float:
        """Return the weight of a span whose merit is that of turn number `turn`.

        Raises:
            DataError: what `by` names is missing or is not a finite number.
        """
        if self.by == "none":
            return span.weight
        value = self._value(turn, trajectory, episode)
        if isinstance(value, bool) or not is_finite_number(value):
            found = "there is none" if value is None else f"it is {value!r:.40}"
            raise DataError(
                f"weight_by is {self.by!r}, which needs a number, but {found}",
                field=self._field(turn),
                mend="give every supervised turn that number, filter such rows out, or set weight_by: none",
            )
        return span.weight * float(value)

    def _value(self, turn: int, trajectory: Trajectory, episode: Episode | None) -> JSON:
        if self.by == "reward":
            if trajectory.reward is None and episode is not None:
                return episode.reward
            return trajectory.reward
        if self.by == "turn_reward":
            return trajectory.turns[turn].reward
        return trajectory.turns[turn].annotations.get(self.by)

    def _field(self, turn: int) -> str:
        if self.by == "reward":
            return "reward"
        return f"turns[{turn}].reward" if self.by == "turn_reward" else f"turns[{turn}].annotations.{self.by}"
