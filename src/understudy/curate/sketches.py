"""Summaries of streams in bounded memory: exact while a stream is small, within a stated error when it is large."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]
State = tuple[int, int]
"""Where a `PrefixHasher` stands: the sum so far, and the number of codes so far."""

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


class Distribution:
    """Count, sum, extremes and quantiles of numbers.

    Quantiles are exact up to `MAX_DISTINCT` distinct values. Beyond that, values are counted in buckets whose width is
    1% of the value, so that a quantile is within 0.5% (the idea of DDSketch, Masson et al. 2019, arXiv:1908.10693).
    """

    MAX_DISTINCT = 4096
    GROWTH = 1.01
    SCALE = 2.0**64  # the sum is kept divided by this, so that it is finite where that of large numbers is not
    SMALLEST, LARGEST = 1e-9, 1e15  # magnitudes beyond these share the outermost buckets

    def __init__(self) -> None:
        self.count = 0
        self._scaled_total = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._is_exact = True
        self._counts: Counter[float] = Counter()

    def add(self, value: float) -> None:
        """Add one finite number.

        Raises:
            ValueError: it is infinite or not a number.
        """
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        self.count += 1
        self._scaled_total += value / self.SCALE
        self.min, self.max = min(self.min, value), max(self.max, value)
        self._counts[value if self._is_exact else self._bucket(value)] += 1
        if self._is_exact and len(self._counts) > self.MAX_DISTINCT:
            self._is_exact = False
            exact, self._counts = self._counts, Counter()
            for known, count in exact.items():
                self._counts[self._bucket(known)] += count

    @property
    def total(self) -> float:
        """The sum; infinite where no float holds it."""
        return self._scaled_total * self.SCALE

    def quantile(self, share: float) -> float:
        """Return the smallest value that at least `share` of the numbers do not exceed (the lower quantile)."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(share * self.count))
        if rank in (1, self.count):
            return self.min if rank == 1 else self.max
        seen = 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if seen >= rank:
                return min(max(value, self.min), self.max)
        return self.max

    def summary(self) -> dict[str, float | int | None]:
        """Return count, total, mean, min, quantiles and max; all but the first two are None for an empty stream.

        A total that no float holds is None too.
        """
        if not self.count:
            return {"count": 0, "total": 0, "mean": None, "min": None, **dict.fromkeys(QUANTILES), "max": None}
        quantiles = {name: self.quantile(share) for name, share in QUANTILES.items()}
        mean = min(max(self._scaled_total / self.count * self.SCALE, self.min), self.max)
        total = self.total if math.isfinite(self.total) else None
        return {"count": self.count, "total": total, "mean": mean, "min": self.min, **quantiles, "max": self.max}

    def _bucket(self, value: float) -> float:
        """Return the middle of the value's bucket."""
        size = abs(value)
        if size < self.SMALLEST:
            return 0.0
        exponent = round(math.log(min(size, self.LARGEST)) / math.log(self.GROWTH))
        return math.copysign(self.GROWTH**exponent, value)


class BoundedCounter:
    """Counts names; the names beyond the first `max_names` are counted together as ``(others)``."""

    OTHERS = "(others)"

    def __init__(self, max_names: int = 200) -> None:
        self._max_names = max_names
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        known = name in self._counts or len(self._counts) < self._max_names
        self._counts[name if known else self.OTHERS] += count

    def most_common(self) -> dict[str, int]:
        """Return the counts, highest first."""
        return dict(self._counts.most_common())


class DistinctCounter:
    """Estimates how many different 64-bit hashes a stream has, from the `size` smallest of them.

    Exact while there are fewer than `size` different ones; then with a standard error of 1 / sqrt(size), which is 0.4%
    for 65,536 (bottom-k sketch, Bar-Yossef et al. 2002). Hashes must be uniform. Takes at most 16 bytes for each of
    `size`, besides what the last `add` brought.
    """

    def __init__(self, size: int = 1 << 16) -> None:
        self.size = size
        self.num_added = 0
        self._smallest: Codes = np.zeros(0, np.uint64)
        self._waiting: list[Codes] = []
        self._num_waiting = 0
        self._threshold = np.uint64(2**64 - 1)

    def add(self, hashes: Codes) -> None:
        self.num_added += len(hashes)
        near = hashes[hashes <= self._threshold]
        if len(near):
            self._waiting.append(near)
            self._num_waiting += len(near)
            if self._num_waiting > self.size:
                self._settle()

    def num_distinct(self) -> float:
        """Return the estimate."""
        self._settle()
        if len(self._smallest) < self.size:
            return float(len(self._smallest))
        return (self.size - 1) / ((float(self._smallest[-1]) + 1) / 2.0**64)

    def repeated_share(self) -> float | None:
        """Return the share of added hashes that were there before; None when nothing was added."""
        return max(0.0, 1.0 - self.num_distinct() / self.num_added) if self.num_added else None

    def _settle(self) -> None:
        if self._waiting:
            self._smallest = np.unique(np.concatenate([self._smallest, *self._waiting]))[: self.size]
            self._waiting, self._num_waiting = [], 0
            if len(self._smallest) == self.size:
                self._threshold = self._smallest[-1]


class PrefixHasher:
    """Hashes every prefix of a sequence of codes, going on from any earlier prefix.

    The prefix that ends at position i has the hash ``mix(Σ_{j≤i} (code_j + 1) · P^j)`` modulo 2^64, so all prefixes of
    a text cost one cumulative sum.
    """

    PRIME = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self) -> None:
        self._powers: Codes = np.ones(1, np.uint64)

    def extend(self, state: State, codes: Codes) -> tuple[Codes, State]:
        """Return the hash of each prefix that ends within `codes`, which follow on `state`, and the new state."""
        total, position = state
        if not len(codes):
            return np.zeros(0, np.uint64), state
        terms = (codes + np.uint64(1)) * self._powers_at(position, len(codes))
        sums = np.cumsum(terms, dtype=np.uint64) + np.uint64(total)
        return _mix(sums), (int(sums[-1]), position + len(codes))

    def _powers_at(self, position: int, length: int) -> Codes:
        while len(self._powers) < position + length:  # doubling: the second half is the first times its next power
            step = self._powers[-1:] * self.PRIME
            self._powers = np.concatenate([self._powers, self._powers * step])
        return self._powers[position : position + length]


def _mix(values: Codes) -> Codes:
    """Spread 64-bit values evenly (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
