"""Share examples out to ranks, or to micro-batches, so that the work is even and shared prefixes stay together.

The cost of an example is the tokens that it adds to what its bin already holds: its own, less the longest prefix that
it shares with one of them. Everything here is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .examples import Example

Bins = list[list[int]]


@dataclass(frozen=True, slots=True)
class _Sharing:
    """Sizes and common prefixes of examples.

    Args:
        order: the examples sorted by their ids, so that those with long common prefixes are neighbours.
        shared: [n, n] tokens of the common prefix of every two examples; their sizes on the diagonal.
    """

    order: list[int]
    shared: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> _Sharing:
        paths = [_first_path(example) for example in examples]
        # Big-endian bytes sort as the ids do, and the common prefix of two sorted rows is the least between neighbours.
        order = sorted(range(len(examples)), key=lambda index: paths[index].astype(">i4").tobytes())
        nearest = np.array([_common_prefix(paths[a], paths[b]) for a, b in pairwise(order)], np.int64)
        shared = np.diag([example.num_tokens for example in examples]).astype(np.int64)
        for rank, index in enumerate(order[:-1]):
            below = order[rank + 1 :]
            shared[index, below] = shared[below, index] = np.minimum.accumulate(nearest[rank:])
        return cls(order, shared)

    def largest_first(self) -> list[int]:
        """Return the indices by falling size; equals keep their order."""
        return [int(index) for index in np.argsort(-np.diag(self.shared), kind="stable")]

    def added(self, index: int, held: Sequence[int]) -> int:
        """Return the tokens that an example adds to a bin."""
        longest = int(self.shared[index, held].max()) if len(held) else 0
        return int(self.shared[index, index]) - longest


def assign(examples: Sequence[Example], num_bins: int) -> Bins:
    """Return the indices of the examples in each of `num_bins` bins, in order within a bin, of even cost.

    Two ways are tried and the one whose heaviest bin is lighter is taken: largest first, each to the bin that is
    lightest with it (even when nothing is shared), and cutting the sorted examples into stretches (families stay
    together).
    """
    if num_bins == 1:
        return [list(range(len(examples)))]
    sharing = _Sharing.of(examples)
    candidates = [_lightest_bin(sharing, num_bins), _stretches(sharing, num_bins)]
    return [sorted(held) for held in min(candidates, key=lambda candidate: candidate[0])[1]]


def pack(examples: Sequence[Example], max_tokens: int, *, shared: bool) -> Bins:
    """Return bins of example indices that cost at most `max_tokens` each. Every example must fit on its own.

    The largest go first, each to the bin to which it adds least among those with room.

    Args:
        shared: whether prefixes are shared within a bin.
    """
    sharing = _Sharing.of(examples)
    bins: Bins = []
    load: list[int] = []
    for index in sharing.largest_first():
        costs = [sharing.added(index, held if shared else ()) for held in bins]
        fitting = [n for n, cost in enumerate(costs) if load[n] + cost <= max_tokens]
        if not fitting:
            bins.append([index])
            load.append(examples[index].num_tokens)
            continue
        chosen = min(fitting, key=lambda n: costs[n])
        bins[chosen].append(index)
        load[chosen] += costs[chosen]
    return [sorted(held) for held in bins]


def _lightest_bin(sharing: _Sharing, num_bins: int) -> tuple[int, Bins]:
    """Return (heaviest load, bins): largest first, each to the bin that is lightest with it."""
    bins: Bins = [[] for _ in range(num_bins)]
    load = np.zeros(num_bins, np.int64)
    for index in sharing.largest_first():
        after = load + [sharing.added(index, held) for held in bins]
        chosen = int(np.argmin(after))
        bins[chosen].append(index)
        load[chosen] = after[chosen]
    return int(load.max()), bins


def _stretches(sharing: _Sharing, num_bins: int) -> tuple[int, Bins]:
    """Return (heaviest load, bins): the sorted examples cut into at most `num_bins` stretches, the heaviest minimal."""
    sizes = np.diag(sharing.shared)
    low, high = int(sizes.max()), int(sizes.sum())
    while low < high:
        middle = (low + high) // 2
        if len(_cut_into(sharing, middle)) <= num_bins:
            high = middle
        else:
            low = middle + 1
    bins = _cut_into(sharing, low)
    return low, bins + [[] for _ in range(num_bins - len(bins))]


def _cut_into(sharing: _Sharing, capacity: int) -> Bins:
    """Return the sorted examples as stretches that each cost at most `capacity`."""
    bins: Bins = []
    load = 0
    for index in sharing.order:
        added = sharing.added(index, bins[-1][-1:]) if bins else capacity + 1
        if load + added > capacity:
            bins.append([])
            load, added = 0, sharing.added(index, ())
        bins[-1].append(index)
        load += added
    return bins


def _first_path(example: Example) -> NDArray[np.int32]:
    """Return the ids of the path that the example's first runs form; what follows lies on other paths."""
    runs = len(example.run_parent)
    chained = example.run_parent == np.arange(-1, runs - 1)
    count = runs if chained.all() else int(np.argmin(chained))
    return example.ids if count == runs else example.ids[: example.run_start[count]]


def _common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length
