"""A step's plan covers each target once over all ranks, and is a function of its arguments alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.batching import LAYOUTS, Example, Layout, Planner, Sampler, Source, StepPlan, make_example
from understudy.errors import ConfigError
from understudy.types import Span, SpanKind, TokenTreeBuilder

from .strategies import Meaning, RandomExample, meaning_of_trees, random_examples
from .test_forest import meaning_of

items = st.lists(random_examples(), min_size=1, max_size=7).map(
    lambda found: [item for item in found if item.example is not None]
)
layouts = st.sampled_from(LAYOUTS)


def planner(items: list[RandomExample], layout: Layout, world_size: int, batch_size: int | None = None) -> Planner:
    examples = [item.example for item in items]
    sampler = Sampler([len(items)], batch_size=batch_size or len(items), seed=0)
    return Planner([Source("data", examples)], sampler, layout=layout, max_tokens_per_batch=12, world_size=world_size)


def meaning_of_plans(plans: list[StepPlan]) -> Meaning:
    total: Meaning = defaultdict(float)
    for plan in plans:
        for batch in plan.micro_batches:
            for key, weight in meaning_of(batch.forest).items():
                total[key] += weight
    return dict(total)


@given(items, layouts, st.integers(1, 4))
def test_over_all_ranks_every_target_is_covered_once(
    items: list[RandomExample], layout: Layout, world_size: int
) -> None:
    if not items:
        return
    plans = [planner(items, layout, world_size).plan(0, rank) for rank in range(world_size)]
    assert meaning_of_plans(plans) == pytest.approx(meaning_of_trees(items))
    weights = sum(np.abs(item.example.weights).sum(1) for item in items)
    assert sum(plan.weight_sums for plan in plans) == pytest.approx(weights)
    assert sum(plan.num_row_tokens for plan in plans) == sum(item.example.num_row_tokens for item in items)


@given(items, layouts)
def test_no_forward_pass_exceeds_the_token_budget(items: list[RandomExample], layout: Layout) -> None:
    if items:
        for batch in planner(items, layout, 1).plan(0).micro_batches:
            assert all(chunk.num_tokens <= 12 for chunk in batch.chunks)
            assert sum(chunk.num_tokens for chunk in batch.chunks) == batch.forest.num_tokens


@given(items, layouts, st.integers(1, 3), st.integers(0, 9))
def test_a_plan_is_a_function_of_its_arguments(
    items: list[RandomExample], layout: Layout, batch_size: int, step: int
) -> None:
    if not items:
        return
    walked, direct = planner(items, layout, 2, batch_size), planner(items, layout, 2, batch_size)
    for earlier in range(step):
        walked.plan(earlier)
    first, second = walked.plan(step, 1), direct.plan(step, 1)
    assert first.drawn == second.drawn
    assert first.epoch == second.epoch
    assert len(first.micro_batches) == len(second.micro_batches)
    for a, b in zip(first.micro_batches, second.micro_batches, strict=True):
        assert a.chunks == b.chunks
        assert a.forest.names == b.forest.names
        for name in ("ids", "parent", "depth", "end"):
            assert np.array_equal(getattr(a.forest, name), getattr(b.forest, name))


def chain(ids: list[int], name: str = "row") -> Example:
    builder = TokenTreeBuilder()
    builder.insert(ids, [Span(SpanKind.ACTION, 0, len(ids) - 2, len(ids))])
    tree = builder.build()
    example = make_example(tree, {"behavioral_cloning": tree.action_weights()}, name=name)
    assert example is not None
    return example


def test_ranks_get_even_work_and_keep_shared_prefixes_together() -> None:
    families = [chain([family] * 50 + [number] * 10) for family in (1, 2) for number in range(4)]
    sampler = Sampler([8], batch_size=8, seed=0)
    plans = [Planner([Source("d", families)], sampler, world_size=2).plan(0, rank) for rank in (0, 1)]
    assert [plan.num_tokens for plan in plans] == [50 + 4 * 9] * 2


def test_the_longest_examples_are_spread_over_the_ranks() -> None:
    examples = [chain([number] * length) for number, length in enumerate((100, 90, 20, 10, 5, 5), start=1)]
    planner = Planner([Source("d", examples)], Sampler([6], batch_size=6, seed=0), world_size=2)
    first, second = (planner.plan(0, rank).num_tokens for rank in (0, 1))
    assert abs(first - second) <= 10


def test_a_rank_without_examples_has_an_empty_plan() -> None:
    planner = Planner([Source("d", [chain([1, 2, 3])])], Sampler([1], batch_size=4, seed=0), world_size=2)
    plans = [planner.plan(0, rank) for rank in (0, 1)]
    assert sorted(len(plan.micro_batches) for plan in plans) == [0, 1]
    assert sorted(plan.weight_sums.tolist() for plan in plans) == [[0.0], [2.0]]


def test_contributions_name_the_source_that_they_were_drawn_from() -> None:
    shared = chain([1, 2, 3, 4])
    sources = [Source("a", [shared]), Source("b", [replace(shared)])]
    batch = Planner(sources, Sampler([1, 1], batch_size=2, seed=0)).plan(0).micro_batches[0]
    assert sorted(batch.forest.sources.tolist()) == [0, 1]
    assert batch.forest.num_tokens == 3
    assert len(batch.forest.targets.label) == 2
    assert len(batch.forest.targets.entry_weight) == 4


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_a_row_that_no_micro_batch_can_hold_is_refused_by_name(layout: Layout) -> None:
    sampler = Sampler([1], batch_size=1, seed=0)
    planner = Planner([Source("d", [chain([1] * 20, "f.jsonl:7")])], sampler, layout=layout, max_tokens_per_batch=9)
    with pytest.raises(ConfigError, match=r"f\.jsonl:7.*max_tokens_per_batch"):
        planner.plan(0)


def test_a_misspelt_layout_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'depth_first'"):
        Planner([], Sampler([1], batch_size=1, seed=0), layout="depthfirst")  # type: ignore[arg-type]
