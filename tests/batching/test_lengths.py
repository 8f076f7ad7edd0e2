"""What is too long is refused, dropped or cut at a turn boundary, and always counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.batching import LengthLimiter, make_example
from understudy.errors import ConfigError, DataError
from understudy.types import Span, SpanKind, TokenTree, TokenTreeBuilder


def conversation(*lengths: int) -> TokenTree:
    """A chain of turns: of each, the first half is context and the second half an action."""
    builder = TokenTreeBuilder()
    spans, depth = [], 0
    for turn, length in enumerate(lengths):
        spans.append(Span(SpanKind.ACTION, turn, depth + length // 2, depth + length))
        depth += length
    builder.insert(list(range(depth)), spans)
    return builder.build()


@given(st.lists(st.integers(2, 9), min_size=1, max_size=6), st.integers(2, 40))
def test_a_cut_keeps_the_turns_that_fit_and_no_part_of_another(lengths: list[int], limit: int) -> None:
    limiter = LengthLimiter(limit, "cut_turns")
    tree = limiter.apply(conversation(*lengths), "row")
    stops = [sum(lengths[: turn + 1]) for turn in range(len(lengths))]
    fitting = [turn for turn, stop in enumerate(stops) if stop <= limit]
    kept = [] if tree is None else [span.turn for span, _ in tree.spans()]
    assert kept == fitting
    assert limiter.counts.num_dropped_spans == len(lengths) - len(fitting)
    assert limiter.counts.num_dropped == int(not fitting)
    if tree is not None:
        example = make_example(tree, {"behavioral_cloning": tree.action_weights()})
        assert example is not None
        assert example.num_row_tokens == stops[fitting[-1]] <= limit


def test_what_follows_the_last_turn_does_not_count() -> None:
    builder = TokenTreeBuilder()
    builder.insert(list(range(100)), [Span(SpanKind.ACTION, 0, 2, 5)])
    assert LengthLimiter(5).apply(builder.build()) is not None


def test_a_tree_that_fits_is_returned_as_it_is() -> None:
    tree = conversation(4, 4)
    for policy in ("error", "drop", "cut_turns"):
        assert LengthLimiter(8, policy).apply(tree) is tree
    assert LengthLimiter(None).apply(tree) is tree


def test_error_names_the_row_the_length_and_the_mend() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3.*8 tokens.*max_length 7.*cut_turns"):
        LengthLimiter(7, "error").apply(conversation(4, 4), "rows.jsonl:3")


def test_drop_drops_the_whole_tree_and_counts_it() -> None:
    limiter = LengthLimiter(7, "drop")
    assert limiter.apply(conversation(4, 4), "a") is None
    assert limiter.apply(conversation(4), "b") is not None
    assert (limiter.counts.num_seen, limiter.counts.num_dropped) == (2, 1)
    assert limiter.counts.dropped_names == ["a"]
    assert limiter.counts.num_dropped_span_tokens == 4


def test_a_cut_of_one_branch_leaves_the_others_whole() -> None:
    builder = TokenTreeBuilder()
    builder.insert([1, 2, 3, 4], [Span(SpanKind.ACTION, 0, 2, 4)])
    builder.insert([1, 2, 9, 9, 9, 9], [Span(SpanKind.ACTION, 1, 2, 6)])
    limiter = LengthLimiter(5, "cut_turns")
    tree = limiter.apply(builder.build())
    assert tree is not None
    assert [span.turn for span, _ in tree.spans()] == [0]
    assert (limiter.counts.num_cut, limiter.counts.num_dropped_spans) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"), [((1, "drop"), "max_length is 1"), ((9, "dorp"), "Did you mean 'drop'")]
)
def test_settings_that_make_no_sense_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LengthLimiter(*arguments)
