"""The step plan: the micro-batches of one optimiser step on one rank.

A plan is a pure function of the data, the config, the seed and the number of the step. Only *within* the step are the
examples arranged, so what is computed is what a naive trainer computes, and only the time differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from understudy.errors import ConfigError, did_you_mean

from .balance import assign, pack
from .chunks import Chunk, cut, whole
from .examples import Doubles, Example
from .forest import Forest, concatenate, merge, separate_rows
from .sampler import Sampler

Layout = Literal["depth_first", "tree", "rows"]
LAYOUTS: tuple[Layout, ...] = ("depth_first", "tree", "rows")


@dataclass(frozen=True, slots=True)
class Source:
    """A named data source and its examples."""

    name: str
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A forest and the chunks in which it is computed; a single chunk unless the layout is depth first."""

    forest: Forest
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one rank computes in one optimiser step.

    Args:
        step: number of the step, from 0.
        epoch: epochs done when the step is done.
        micro_batches: empty on a rank for which a small last step has no example.
        weight_sums: [terms] this rank's sums of absolute weights, the denominators' parts.
        drawn: (source, index) of every example of the step, over all ranks.
    """

    step: int
    epoch: float
    micro_batches: tuple[MicroBatch, ...]
    weight_sums: Doubles
    drawn: tuple[tuple[int, int], ...]

    @property
    def num_tokens(self) -> int:
        """Tokens that this rank computes."""
        return sum(batch.forest.num_tokens for batch in self.micro_batches)

    @property
    def num_row_tokens(self) -> int:
        """Tokens that separate rows would compute for the same supervision."""
        return sum(batch.forest.num_row_tokens for batch in self.micro_batches)

    @property
    def names(self) -> list[str]:
        """Names of this rank's examples."""
        return [name for batch in self.micro_batches for name in batch.forest.names]


class Planner:
    """Make the plan of any step.

    Args:
        sources: the data, in the order of the sampler's sizes.
        sampler: draws the examples of each step.
        layout: ``depth_first``: one forest per rank and step, computed in chunks of at most `max_tokens_per_batch`
            tokens that see the keys and values above them; nothing is computed twice. ``tree``: forests of at most that
            many tokens, each on its own; a prefix that falls into two of them is computed twice. ``rows``: nothing is
            shared.
        max_tokens_per_batch: tokens of one forward pass.
        world_size: number of ranks that share the step's examples.

    Raises:
        ConfigError: the layout is unknown, or sizes do not match.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sampler: Sampler,
        *,
        layout: Layout = "depth_first",
        max_tokens_per_batch: int = 4096,
        world_size: int = 1,
    ) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(f"unknown layout {layout!r}.{did_you_mean(layout, LAYOUTS)} Known: {', '.join(LAYOUTS)}")
        if max_tokens_per_batch < 1:
            raise ConfigError(f"max_tokens_per_batch is {max_tokens_per_batch}")
        self._sources = tuple(sources)
        self._sampler = sampler
        self._layout = layout
        self._max_tokens = max_tokens_per_batch
        self._world_size = world_size

    def plan(self, step: int, rank: int = 0) -> StepPlan:
        """Return what `rank` computes in `step`.

        Raises:
            ConfigError: a path is longer than `max_tokens_per_batch` and the layout cannot cut it.
        """
        drawn = self._sampler.draw(step)
        examples = [replace(self._sources[source].examples[index], source=source) for source, index in drawn]
        mine = [examples[index] for index in assign(examples, self._world_size)[rank]]
        return self._make(mine, step=step, epoch=self._sampler.epoch(step + 1), drawn=drawn)

    def _make(self, examples: list[Example], *, step: int, epoch: float, drawn: list[tuple[int, int]]) -> StepPlan:
        batches = self._micro_batches(examples) if examples else ()
        num_terms = len(self._sources[0].examples[0].term_names)
        sums = sum((batch.forest.weight_sums() for batch in batches), np.zeros(num_terms))
        return StepPlan(step=step, epoch=epoch, micro_batches=batches, weight_sums=sums, drawn=tuple(drawn))

    def _micro_batches(self, examples: list[Example]) -> tuple[MicroBatch, ...]:
        if self._layout == "depth_first":
            forest = merge(examples)
            return (MicroBatch(forest, tuple(cut(forest, self._max_tokens))),)
        shared = self._layout == "tree"
        join = merge if shared else concatenate
        parts = self._fitting(examples)
        forests = [join([parts[index] for index in held]) for held in pack(parts, self._max_tokens, shared=shared)]
        return tuple(MicroBatch(forest, tuple(whole(forest))) for forest in forests)

    def _fitting(self, examples: list[Example]) -> list[Example]:
        """Return parts that fit a micro-batch: rows where rows are asked for or an example is too large as a whole."""
        parts: list[Example] = []
        for example in examples:
            if self._layout == "tree" and example.num_tokens <= self._max_tokens:
                parts.append(example)
            else:
                parts.extend(separate_rows(example))
        for part in parts:
            if part.num_tokens > self._max_tokens:
                raise ConfigError(
                    f"{part.name}: a row of {part.num_tokens} tokens does not fit max_tokens_per_batch "
                    f"{self._max_tokens}; raise it, set max_length, or use layout: depth_first, which can cut it"
                )
        return parts
