"""Merging changes where tokens are computed, never what is computed."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.batching import Forest, concatenate, make_example, merge, separate_rows
from understudy.types import Span, SpanKind, TokenTreeBuilder

from .strategies import TERMS, Meaning, RandomExample, meaning_of_trees, random_examples

mixes = st.tuples(st.lists(random_examples(0), min_size=1, max_size=4), st.lists(random_examples(1), max_size=3)).map(
    lambda parts: parts[0] + parts[1]
)


def path_ids(forest: Forest, token: int) -> tuple[int, ...]:
    ids: list[int] = []
    while token >= 0:
        ids.append(int(forest.ids[token]))
        token = int(forest.parent[token])
    return tuple(ids[::-1])


def meaning_of(forest: Forest) -> Meaning:
    meaning: Meaning = defaultdict(float)
    targets = forest.targets
    for target, term, example, weight in zip(
        targets.entry_target, targets.entry_term, targets.entry_example, targets.entry_weight, strict=True
    ):
        path = path_ids(forest, int(targets.position[target]))
        meaning[path, int(targets.label[target]), int(term), int(forest.sources[example])] += float(weight)
    return dict(meaning)


def examples_of(items: list[RandomExample]) -> list:
    return [item.example for item in items if item.example is not None]


@given(mixes)
def test_merged_weights_are_the_sums_of_the_rows_weights_by_term_and_source(items: list[RandomExample]) -> None:
    examples = examples_of(items)
    if examples:
        assert meaning_of(merge(examples)) == pytest.approx(meaning_of_trees(items))


@given(mixes)
def test_separate_rows_carry_every_target_once(items: list[RandomExample]) -> None:
    rows = [row for example in examples_of(items) for row in separate_rows(example)]
    if rows:
        forest = concatenate(rows)
        assert meaning_of(forest) == pytest.approx(meaning_of_trees(items))
        assert forest.num_row_tokens == forest.num_tokens + len(rows)


@given(mixes)
def test_a_forest_is_in_depth_first_order_with_the_heaviest_child_first(items: list[RandomExample]) -> None:
    examples = examples_of(items)
    if not examples:
        return
    forest = merge(examples)
    size = forest.end - np.arange(forest.num_tokens)
    for token in range(forest.num_tokens):
        parent = int(forest.parent[token])
        assert parent < token
        assert forest.depth[token] == (0 if parent < 0 else forest.depth[parent] + 1)
        descendants = [u for u in range(forest.num_tokens) if token in ancestors(forest, u)]
        assert descendants == list(range(token + 1, int(forest.end[token])))
        children = [u for u in range(token + 1, int(forest.end[token])) if forest.parent[u] == token]
        assert children[:1] in ([], [token + 1])
        assert all(size[a] >= size[b] for a, b in pairwise(children))


@given(mixes)
def test_no_path_stands_twice_and_every_token_precedes_a_target(items: list[RandomExample]) -> None:
    examples = examples_of(items)
    if not examples:
        return
    forest = merge(examples)
    paths = [path_ids(forest, token) for token in range(forest.num_tokens)]
    assert len(set(paths)) == len(paths)
    positions = forest.targets.position
    assert all(((positions >= token) & (positions < forest.end[token])).any() for token in range(forest.num_tokens))


def ancestors(forest: Forest, token: int) -> set[int]:
    out = set()
    while (token := int(forest.parent[token])) >= 0:
        out.add(token)
    return out


def test_a_tree_without_supervision_makes_no_example() -> None:
    builder = TokenTreeBuilder()
    builder.insert([1, 2, 3])
    tree = builder.build()
    assert make_example(tree, {"behavioral_cloning": np.zeros(3)}) is None
    only_first = np.array([1.0, 0, 0])
    assert make_example(tree, {"behavioral_cloning": only_first}) is None


def test_the_last_supervised_token_and_what_follows_it_are_not_computed() -> None:
    builder = TokenTreeBuilder()
    builder.insert([5, 6, 7, 8, 9], [Span(SpanKind.ACTION, 0, 2, 4)])
    example = make_example(builder.build(), {"behavioral_cloning": np.array([0, 0, 1.0, 1.0, 0])})
    assert example is not None
    assert example.ids.tolist() == [5, 6, 7]
    assert example.position.tolist() == [1, 2]
    assert example.label.tolist() == [7, 8]
    assert example.num_row_tokens == 4


def test_weights_of_the_wrong_length_are_refused() -> None:
    builder = TokenTreeBuilder()
    builder.insert([1, 2])
    with pytest.raises(ValueError, match="shape"):
        make_example(builder.build(), {TERMS[0]: np.zeros(3)})
