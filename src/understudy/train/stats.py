"""What a step or an evaluation measured: sums that add up over micro-batches and ranks, and the figures made of
them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from understudy.batching import Targets

Doubles = NDArray[np.float64]


@dataclass(slots=True)
class LossSums:
    """Sums of weighted losses, kept apart by term and data source.

    Args:
        nll, weight, correct: [terms, sources] sums of weight * nll, of |weight|, and of |weight| where the label had
            the largest logit. Nll in nats.
        num_tokens: tokens computed.
        num_row_tokens: tokens that separate rows would compute.
        bad_names: examples whose loss was not finite.
    """

    nll: Doubles
    weight: Doubles
    correct: Doubles
    num_tokens: int = 0
    num_row_tokens: int = 0
    bad_names: list[str] = field(default_factory=list)

    @classmethod
    def zeros(cls, num_terms: int, num_sources: int) -> LossSums:
        nll, weight, correct = np.zeros((3, num_terms, num_sources))
        return cls(nll, weight, correct)

    def add(self, targets: Targets, sources: NDArray[np.int32], nll: Doubles, correct: NDArray[np.bool_]) -> None:
        """Add targets with their measured nll [N] and correct [N]; `sources` is each example's source."""
        where = (targets.entry_term, sources[targets.entry_example])
        size = np.abs(targets.entry_weight)
        np.add.at(self.nll, where, targets.entry_weight * nll[targets.entry_target])
        np.add.at(self.weight, where, size)
        np.add.at(self.correct, where, size * correct[targets.entry_target])

    def packed(self) -> Doubles:
        """Return all numbers as one array, for an all-reduce."""
        counts = [self.num_tokens, self.num_row_tokens]
        return np.concatenate([self.nll.ravel(), self.weight.ravel(), self.correct.ravel(), counts])

    def unpack(self, values: Doubles) -> None:
        """Take all numbers from an array made by `packed`."""
        for n, sums in enumerate((self.nll, self.weight, self.correct)):
            sums[...] = values[n * sums.size : (n + 1) * sums.size].reshape(sums.shape)
        self.num_tokens, self.num_row_tokens = (int(value) for value in values[-2:])


@dataclass(frozen=True, slots=True)
class TermStats:
    """One term's figures. `loss` is in nats per unit of weight; `accuracy` is the share of weight predicted right."""

    loss: float
    accuracy: float
    weight: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(slots=True)
class StepStats:
    """What a step or an evaluation measured, over all ranks.

    Args:
        loss: what is minimised: the sum of the terms' losses times their coefficients.
        terms: each term with weight.
        sources: the same by data source; only where a source has weight.
        num_tokens, num_row_tokens: tokens computed, and what separate rows would compute.
        bad_names: examples of this rank whose loss was not finite.
        grad_norm: set by `Engine.optimizer_step`; before clipping.
        skipped: fp16 only: the gradients overflowed, so the step only lowered the loss scale.
    """

    loss: float
    terms: dict[str, TermStats]
    sources: dict[str, dict[str, TermStats]]
    num_tokens: int
    num_row_tokens: int
    bad_names: list[str] = field(default_factory=list)
    grad_norm: float | None = None
    skipped: bool = False

    @property
    def tree_saving(self) -> float:
        """The share of row tokens that trees did not compute."""
        return 1 - self.num_tokens / self.num_row_tokens if self.num_row_tokens else 0.0

    @classmethod
    def of(cls, sums: LossSums, coefficients: Mapping[str, float], source_names: Sequence[str]) -> StepStats:
        """Return the figures made of sums that are complete, over all micro-batches and ranks."""
        terms: dict[str, TermStats] = {}
        sources: dict[str, dict[str, TermStats]] = {name: {} for name in source_names}
        for n, term in enumerate(coefficients):
            if sums.weight[n].sum():
                terms[term] = _term(sums.nll[n].sum(), sums.correct[n].sum(), sums.weight[n].sum())
            for s, source in enumerate(source_names):
                if sums.weight[n, s]:
                    sources[source][term] = _term(sums.nll[n, s], sums.correct[n, s], sums.weight[n, s])
        return cls(
            loss=sum(coefficients[term] * stats.loss for term, stats in terms.items()),
            terms=terms,
            sources={name: by_term for name, by_term in sources.items() if by_term},
            num_tokens=sums.num_tokens,
            num_row_tokens=sums.num_row_tokens,
            bad_names=sums.bad_names,
        )


def _term(nll: float, correct: float, weight: float) -> TermStats:
    return TermStats(loss=float(nll / weight), accuracy=float(correct / weight), weight=float(weight))
