"""The account of a check counts what there is, and finds a tree that breaks the promise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.rendering.chatml import small, talk
from tests.rendering.conversation_shapes import assistant, user
from understudy.rendering import RefusalCode, RenderAccount, Rendered, Renderer
from understudy.types import Episode, Message, SampledTokens, Span, SpanKind, Trajectory, Turn

TALK = (user("1?"), assistant("one"), user("2?"), assistant("two"))


def counted(*trajectories: Trajectory, renderer: Any = None, **options: Any) -> RenderAccount:
    account = RenderAccount(**options)
    renderer = renderer or Renderer(small(), on_refusal="skip", audit=True)
    for n, trajectory in enumerate(trajectories):
        account.add(renderer, Episode("x", (trajectory,)), f"rows:{n + 1}")
    return account


def test_turns_and_tokens_are_counted() -> None:
    account = counted(talk(*TALK), talk(user("1?"), assistant("a<|im_end|>b")))
    assert (account.num_rows, account.num_turns, account.num_exact) == (2, 3, 2)
    assert account.refused == {RefusalCode.STOP_INSIDE_TURN: 1}
    assert account.examples["STOP_INSIDE_TURN"][0].startswith("rows:2: turn 0: a stop token stands inside the turn")
    assert not account.is_clean
    encode = small().encode
    first = "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\none<|im_end|>"
    whole = first + "\n<|im_start|>user\n2?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>"
    assert account.num_tree_tokens == account.longest == len(encode(whole))
    assert account.num_turn_tokens == len(encode(first)) + len(encode(whole))
    assert account.num_supervised_tokens == len(encode("one<|im_end|>two<|im_end|>"))


def test_rows_with_longer_paths_are_counted() -> None:
    length = counted(talk(*TALK)).longest
    assert counted(talk(*TALK), max_length=length).num_too_long == 0
    assert counted(talk(*TALK), max_length=length - 1).num_too_long == 1


def test_turns_of_weight_zero_are_context_only() -> None:
    trajectory = Episode.from_messages(TALK, weights=[1, 0, 1, 1]).trajectories[0]
    account = counted(trajectory)
    assert (account.num_turns, account.num_exact, account.num_context_only) == (2, 1, 1)
    assert account.is_clean


def test_recorded_ids_are_counted_and_held_against_the_rendering() -> None:
    encode = small().encode
    prompt = tuple(encode("<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"))
    turns = [
        Turn(None, (Message("user", "1?"),), Message("assistant", "1"), sampled=SampledTokens(prompt, tuple(output)))
        for output in (encode("1<|im_end|>"), encode("1"))
    ]
    account = counted(*(Trajectory((turn,)) for turn in turns))
    assert (account.num_recorded, account.num_audited, account.num_audits_equal) == (2, 2, 1)
    assert account.examples["recorded ids differ"] == [f"rows:2: turn 0: first difference at token {len(prompt) + 1}"]
    assert account.is_clean


class _Tampering(Renderer):
    """A renderer that breaks the promise in one way."""

    way = ""

    def render(self, trajectory: Trajectory) -> Rendered:
        rendered = super().render(trajectory)
        tree, (first, *others) = rendered.tree, rendered.turns
        if self.way == "an id":
            tree.ids[-2] += 1
        elif self.way == "the length of a target":
            first = dataclasses.replace(first, num_target_tokens=first.num_target_tokens - 1)
        else:
            (node, spans), *rest = tree.sequences
            more = {"a span too much": (Span(SpanKind.ACTION, 0, 0, 1),), "a span too few": ()}[self.way]
            kept = spans if self.way == "a span too much" else spans[1:]
            tree = dataclasses.replace(tree, sequences=((node, (*more, *kept)), *rest))
        return dataclasses.replace(rendered, tree=tree, turns=(first, *others))


@pytest.mark.parametrize("way", ["an id", "the length of a target", "a span too much", "a span too few"])
def test_a_tree_that_breaks_the_promise_is_counted_as_wrong(way: str) -> None:
    renderer = _Tampering(small())
    renderer.way = way
    account = counted(talk(*TALK), renderer=renderer)
    assert account.num_wrong == 1
    assert not account.is_clean
    assert account.examples["wrong"][0].startswith("rows:1: ")
    assert counted(talk(*TALK)).num_wrong == 0
