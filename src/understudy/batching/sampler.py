"""Which examples each optimiser step draws: shuffled epoch by epoch, as any SFT trainer draws them.

The draw of a step is a pure function of sizes, ratios, seed and the step's number, so resuming is an index, not a
replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError


class Sampler:
    """Draw (source, index) pairs step by step.

    Without ratios an epoch is every example of every source once. With ratios an epoch is the smallest mix in these
    shares that holds every example at least once: a source with a large share is gone through several times, each time
    in a new order. The last step of an epoch is smaller when the batch size does not divide the epoch.

    Args:
        sizes: number of examples of each source.
        batch_size: examples of an optimiser step, over all ranks and accumulated micro-batches.
        seed: of all shuffling.
        ratios: share of each source in the mix; need not sum to 1. None: in proportion to the sizes.
        shuffle: False keeps the order: all of the first source, then the second, and so on.

    Raises:
        ConfigError: a source is empty, or a number makes no sense.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        ratios: Sequence[float] | None = None,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"the batch size is {batch_size}")
        if not sizes or min(sizes) < 1:
            raise ConfigError(f"every data source needs an example; they have {list(sizes)}")
        self._sizes = tuple(sizes)
        self._seed = seed
        self._shuffle = shuffle
        self._batch_size = batch_size
        self._counts = self._sizes if ratios is None else _mixed_counts(self._sizes, ratios)
        self._epoch_order = lru_cache(maxsize=2)(self._make_epoch)

    @property
    def epoch_size(self) -> int:
        """Examples of one epoch."""
        return sum(self._counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many examples of each source an epoch draws."""
        return self._counts

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.epoch_size // self._batch_size)

    def epoch(self, step: int) -> float:
        """Return how many epochs are done before `step` (counted from 0)."""
        whole, within = divmod(step, self.steps_per_epoch)
        return whole + min(within * self._batch_size / self.epoch_size, 1.0)

    def draw(self, step: int) -> list[tuple[int, int]]:
        """Return the (source, index in the source) of each example of `step`, counted from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        sources, indices = self._epoch_order(epoch)
        chosen = slice(within * self._batch_size, (within + 1) * self._batch_size)
        return list(zip(sources[chosen].tolist(), indices[chosen].tolist(), strict=True))

    def _make_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return [epoch_size] the source and the index of each draw of an epoch."""
        sources = np.repeat(np.arange(len(self._sizes)), self._counts)
        indices = np.concatenate([self._stream(source, epoch) for source in range(len(self._sizes))])
        if not self._shuffle:
            return sources, indices
        order = np.random.default_rng([self._seed, epoch]).permutation(len(sources))
        return sources[order], indices[order]

    def _stream(self, source: int, epoch: int) -> NDArray[np.int64]:
        """Return what `epoch` draws from one source: the next part of its endless run of shuffled passes."""
        size, count = self._sizes[source], self._counts[source]
        start, stop = epoch * count, (epoch + 1) * count
        passes = range(start // size, -(-stop // size))
        drawn = np.concatenate([self._one_pass(source, number) for number in passes])
        offset = passes.start * size
        return drawn[start - offset : stop - offset]

    def _one_pass(self, source: int, number: int) -> NDArray[np.int64]:
        size = self._sizes[source]
        if not self._shuffle:
            return np.arange(size)
        # The third word keeps these streams apart from those of the epochs.
        return np.random.default_rng([self._seed, number, source + 1]).permutation(size)


def _mixed_counts(sizes: Sequence[int], ratios: Sequence[float]) -> tuple[int, ...]:
    if len(ratios) != len(sizes):
        raise ConfigError(f"{len(ratios)} ratios for {len(sizes)} data sources")
    if not all(np.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ConfigError(f"ratios are {list(ratios)}: each must be a positive number; leave a source out to drop it")
    epoch_size = max(size / ratio for size, ratio in zip(sizes, ratios, strict=True))
    return tuple(max(size, round(epoch_size * ratio)) for size, ratio in zip(sizes, ratios, strict=True))
