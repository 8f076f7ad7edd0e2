"""Chunks cover the forest once, and each sees exactly its ancestors."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from understudy.batching import Chunk, Forest, merge, schedule
from understudy.batching.chunks import cut, whole

from .strategies import RandomExample, random_examples
from .test_forest import ancestors, examples_of

items = st.lists(random_examples(), min_size=1, max_size=6)


def tokens_of(chunk: Chunk) -> list[int]:
    return [token for part in chunk.slices for token in range(part.start, part.stop)]


def past_of(chunks: list[Chunk], chunk: Chunk) -> list[int]:
    """Return the forest tokens whose keys and values a chunk is given, in order."""
    return [token for part in chunk.path for token in tokens_of(chunks[part.chunk])[part.start : part.stop]]


def check(forest: Forest, chunks: list[Chunk]) -> None:
    assert sorted(token for chunk in chunks for token in tokens_of(chunk)) == list(range(forest.num_tokens))
    for chunk in chunks:
        own, past = tokens_of(chunk), past_of(chunks, chunk)
        assert own == sorted(own)
        assert forest.depth[past].tolist() == list(range(len(past)))
        for part in chunk.slices:
            for token in range(part.start, part.stop):
                seen = set(past[: part.num_past]) | (ancestors(forest, token) & set(own))
                assert seen == ancestors(forest, token)
        for part in chunk.path:
            assert chunks[part.chunk].has_children


@given(items, st.integers(1, 12))
def test_chunks_cover_the_forest_once_within_the_budget(items: list[RandomExample], max_tokens: int) -> None:
    examples = examples_of(items)
    if examples:
        forest = merge(examples)
        chunks = cut(forest, max_tokens)
        assert all(chunk.num_tokens <= max_tokens for chunk in chunks)
        check(forest, chunks)
        check(forest, whole(forest))


@given(items, st.integers(1, 12))
def test_the_schedule_goes_forward_before_and_backward_after_all_chunks_below(
    items: list[RandomExample], max_tokens: int
) -> None:
    examples = examples_of(items)
    if not examples:
        return
    chunks = cut(merge(examples), max_tokens)
    steps = list(schedule(chunks))
    forward = {step.chunk: n for n, step in enumerate(steps) if step.what == "forward"}
    backward = {step.chunk: n for n, step in enumerate(steps) if step.what == "backward"}
    assert sorted(forward) == sorted(backward) == list(range(len(chunks)))
    for index, chunk in enumerate(chunks):
        for part in chunk.path:
            assert forward[part.chunk] < forward[index] < backward[index] < backward[part.chunk]
        if not chunk.has_children:
            assert backward[index] == forward[index] + 1


@given(items, st.integers(1, 12))
def test_only_one_path_of_chunks_is_held_at_a_time(items: list[RandomExample], max_tokens: int) -> None:
    examples = examples_of(items)
    if not examples:
        return
    forest = merge(examples)
    chunks = cut(forest, max_tokens)
    held = most = 0
    for step in schedule(chunks):
        held += chunks[step.chunk].num_tokens * (1 if step.what == "forward" else -1)
        most = max(most, held)
    assert held == 0
    # Besides the path: the rest of each stem that it leaves sideways, at most one for each halving of the subtree.
    assert most <= int(np.max(forest.depth)) + 1 + max_tokens * (1 + np.log2(forest.num_tokens))
