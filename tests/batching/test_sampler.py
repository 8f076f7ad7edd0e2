"""Draws are shuffled passes over the data, in the shares asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.batching import Sampler
from understudy.errors import ConfigError

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=3)


@given(sizes, st.integers(1, 17), st.integers(0, 5), st.integers(0, 3))
def test_every_epoch_draws_every_example_once(sizes: list[int], batch_size: int, seed: int, epoch: int) -> None:
    sampler = Sampler(sizes, batch_size=batch_size, seed=seed)
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    batches = [sampler.draw(step) for step in steps]
    everything = [(source, index) for source, size in enumerate(sizes) for index in range(size)]
    assert sorted(pair for batch in batches for pair in batch) == everything
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert sampler.epoch(steps.stop) == epoch + 1


@given(sizes, st.data())
def test_ratios_decide_the_shares_and_nothing_is_left_out(sizes: list[int], data: st.DataObject) -> None:
    ratios = data.draw(st.lists(st.sampled_from((0.1, 0.5, 1.0, 3.0)), min_size=len(sizes), max_size=len(sizes)))
    sampler = Sampler(sizes, batch_size=7, seed=0, ratios=ratios)
    drawn = [pair for step in range(sampler.steps_per_epoch) for pair in sampler.draw(step)]
    counts = Counter(source for source, _ in drawn)
    for source, ratio in enumerate(ratios):
        assert abs(counts[source] - sampler.epoch_size * ratio / sum(ratios)) <= len(sizes)
        passes = Counter(index for of, index in drawn if of == source)
        assert set(passes) == set(range(sizes[source]))
        assert max(passes.values()) - min(passes.values()) <= 1


def test_a_draw_depends_on_the_step_alone() -> None:
    first = Sampler([50, 20], batch_size=8, seed=3, ratios=[1, 2])
    second = Sampler([50, 20], batch_size=8, seed=3, ratios=[1, 2])
    in_order = [first.draw(step) for step in range(40)]
    assert [second.draw(step) for step in reversed(range(40))][::-1] == in_order


def test_epochs_and_seeds_shuffle_differently() -> None:
    sampler = Sampler([40], batch_size=40, seed=0)
    assert sampler.draw(0) != sampler.draw(1)
    assert sampler.draw(0) != Sampler([40], batch_size=40, seed=1).draw(0)


def test_without_shuffling_rows_come_in_order() -> None:
    sampler = Sampler([3, 2], batch_size=4, seed=0, shuffle=False)
    assert sampler.draw(0) + sampler.draw(1) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [0], "batch_size": 1}, "needs an example"),
        ({"sizes": [2], "batch_size": 0}, "batch size"),
        ({"sizes": [2, 2], "batch_size": 1, "ratios": [1]}, "1 ratios for 2"),
        ({"sizes": [2], "batch_size": 1, "ratios": [0]}, "positive"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampler(**arguments, seed=0)
