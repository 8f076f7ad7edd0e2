"""Share examples out to ranks, or to micro-batches, so that the work is even and shared prefixes stay together.

The cost of an example is the tokens that it adds to what its bin already holds: its own, less the longest prefix that
it shares with one of them. Both functions are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .examples import Example


def shared_prefixes(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return [n, n] the length of the common prefix of every two examples' ids; on the diagonal, their lengths."""
    count = len(examples)
    # Big-endian bytes sort as the ids do, and the common prefix of two sorted rows is the least one between neighbours.
    order = sorted(range(count), key=lambda index: examples[index].ids.astype(">i4").tobytes())
    shared = np.zeros((count, count), np.int64)
    for rank, index in enumerate(order):
        running = shared[index, index] = examples[index].num_tokens
        for above, below in zip(order[rank:-1], order[rank + 1 :], strict=True):
            if running:
                running = min(running, _common_prefix(examples[above].ids, examples[below].ids))
            shared[index, below] = shared[below, index] = running
    return shared


def _common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def assign(examples: Sequence[Example], num_bins: int) -> list[list[int]]:
    """Return the indices of the examples in each of `num_bins` bins of even cost; in order within a bin.

    The largest go first, each to the bin that is lightest with it.
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    if num_bins == 1:
        return [list(range(len(examples)))]
    shared = shared_prefixes(examples)
    load = np.zeros(num_bins, np.int64)
    for index in _largest_first(examples):
        cost = np.array([_added_tokens(shared, index, held) for held in bins])
        chosen = int(np.argmin(load + cost))
        bins[chosen].append(index)
        load[chosen] += cost[chosen]
    return [sorted(held) for held in bins]


def pack(examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    """Return bins of example indices that cost at most `max_tokens` each. Every example must fit on its own.

    The largest go first, each to the bin to which it adds least among those with room.
    """
    bins: list[list[int]] = []
    load: list[int] = []
    shared = shared_prefixes(examples)
    for index in _largest_first(examples):
        costs = [_added_tokens(shared, index, held) for held in bins]
        fitting = [n for n, cost in enumerate(costs) if load[n] + cost <= max_tokens]
        if not fitting:
            bins.append([index])
            load.append(examples[index].num_tokens)
            continue
        chosen = min(fitting, key=lambda n: costs[n])
        bins[chosen].append(index)
        load[chosen] += costs[chosen]
    return [sorted(held) for held in bins]


def _largest_first(examples: Sequence[Example]) -> list[int]:
    return sorted(range(len(examples)), key=lambda index: -examples[index].num_tokens)


def _added_tokens(shared: NDArray[np.int64], index: int, held: Sequence[int]) -> int:
    longest = int(shared[index, held].max()) if len(held) else 0
    return int(shared[index, index]) - longest
