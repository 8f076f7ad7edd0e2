"""Summaries of streams agree with plain computations on the whole data."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.curate.sketches import BoundedCounter, DistinctCounter, Distribution, PrefixHasher

NUMBERS = st.lists(st.integers(-50, 50) | st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(NUMBERS, st.floats(0, 1))
def test_a_small_stream_has_exact_quantiles(values: list[float], share: float) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    assert distribution.quantile(share) == np.quantile(values, share, method="inverted_cdf")
    summary = distribution.summary()
    assert (summary["count"], summary["min"], summary["max"]) == (len(values), min(values), max(values))
    assert summary["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("spread", [2.0, 4.0])
def test_a_large_stream_has_quantiles_within_half_a_percent_in_bounded_memory(spread: float) -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate(
        [generator.lognormal(2, spread, 60_000), -generator.lognormal(1, spread, 20_000), [0.0] * 99]
    )
    generator.shuffle(values)
    distribution = Distribution()
    for value in values:
        distribution.add(float(value))
    for share in (0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.9999):
        exact = np.quantile(values, share, method="inverted_cdf")
        if abs(exact) >= Distribution.SMALLEST:
            assert distribution.quantile(share) == pytest.approx(exact, rel=0.006)
    assert distribution.quantile(0) == values.min()
    assert distribution.quantile(1) == values.max()
    assert len(distribution._counts) < 12_000
    assert distribution.total == pytest.approx(math.fsum(values))


@pytest.mark.parametrize(("sign", "num"), [(1, 3), (-1, 1000)])
def test_a_sum_that_no_float_holds_is_none_and_the_mean_is_known(sign: int, num: int) -> None:
    distribution = Distribution()
    for _ in range(num):
        distribution.add(sign * 1.7e308)
    summary = distribution.summary()
    assert (summary["count"], summary["total"]) == (num, None)
    assert summary["mean"] == pytest.approx(sign * 1.7e308)
    for _ in range(num):
        distribution.add(-sign * 1.7e308)
    assert distribution.summary()["total"] == pytest.approx(0, abs=1e298)


def test_an_empty_stream_has_no_mean() -> None:
    assert Distribution().summary() == dict.fromkeys(["mean", "min", "p10", "p50", "p90", "p99", "max"]) | {
        "count": 0,
        "total": 0,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        Distribution().add(value)


def test_names_beyond_the_bound_are_counted_together() -> None:
    counter = BoundedCounter(max_names=2)
    for name in "abacdca":
        counter.add(name)
    assert counter.most_common() == {"a": 3, "(others)": 3, "b": 1}


def test_few_distinct_hashes_are_counted_exactly() -> None:
    generator = np.random.default_rng(1)
    pool = generator.integers(0, 2**64, 5000, dtype=np.uint64)
    counter, seen = DistinctCounter(), set()
    for _ in range(50):
        chunk = generator.choice(pool, 300)
        counter.add(chunk)
        seen.update(chunk.tolist())
        assert counter.num_distinct() == len(seen)
    assert counter.repeated_share() == pytest.approx(1 - len(seen) / 15_000)


@pytest.mark.parametrize("num_distinct", [70_000, 2_000_000])
def test_many_distinct_hashes_are_estimated_within_two_percent_in_bounded_memory(num_distinct: int) -> None:
    generator = np.random.default_rng(2)
    hashes = generator.integers(0, 2**64, num_distinct, dtype=np.uint64)
    counter = DistinctCounter()
    for chunk in np.array_split(np.concatenate([hashes, hashes[: num_distinct // 2]]), 400):
        counter.add(chunk)
    assert counter.num_distinct() == pytest.approx(num_distinct, rel=0.02)
    assert counter.repeated_share() == pytest.approx(1 / 3, abs=0.015)
    assert len(counter._smallest) + counter._num_waiting <= 2 * counter.size


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12), st.randoms())
def test_prefixes_have_equal_hashes_exactly_when_they_are_equal(
    sequences: list[list[int]], chance: random.Random
) -> None:
    hasher = PrefixHasher()
    by_hash: dict[int, tuple[int, ...]] = {}
    by_prefix: dict[tuple[int, ...], int] = {}
    for sequence in sequences:
        cut = chance.randint(0, len(sequence))
        codes = np.array(sequence, np.uint64)
        first, state = hasher.extend((0, 0), codes[:cut])
        second, _ = hasher.extend(state, codes[cut:])
        for position, value in enumerate([*first.tolist(), *second.tolist()]):
            prefix = tuple(sequence[: position + 1])
            assert by_hash.setdefault(value, prefix) == prefix
            assert by_prefix.setdefault(prefix, value) == value


def test_hashes_of_prefixes_are_spread_evenly() -> None:
    hashes, _ = PrefixHasher().extend((0, 0), np.zeros(200_000, np.uint64))
    counts, _ = np.histogram(hashes.astype(np.float64), bins=64, range=(0, 2.0**64))
    assert np.abs(counts - 3125).max() < 6 * math.sqrt(3125)
