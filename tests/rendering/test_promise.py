"""The promise over random conversations: paths give back every call, weights add up, and nothing else is trained."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.rendering import ModelTokenizer, Renderer, load_tokenizer
from understudy.types import (
    Message,
    Span,
    SpanKind,
    TokenTreeBuilder,
    Tool,
    ToolCall,
    Trajectory,
    Turn,
    tools_to_openai,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=24) | st.sampled_from(
    ["", "ok", "\n\nindented", "a<tool_call>b", "<think>\nhm\n</think>\n\nyes", "trailing \n", "é\u0301"]
)
TOOL = Tool.from_openai({"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}})


@st.composite
def actions(draw: st.DrawFn) -> Message:
    reasoning = draw(st.none() | st.sampled_from(["Because.", "First this,\nthen that."]))
    if draw(st.booleans()):
        arguments = draw(
            st.dictionaries(st.sampled_from(["a", "b c"]), TEXT | st.integers() | st.booleans(), max_size=2)
        )
        return Message("assistant", draw(TEXT), reasoning, (ToolCall("look", arguments, "call00001"),))
    return Message("assistant", draw(TEXT), reasoning)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """Chains, forks and fresh roots, with weights of all kinds."""
    turns: list[Turn] = []
    for index in range(draw(st.integers(1, 5))):
        parent = draw(st.none() | st.integers(0, index - 1)) if index else None
        role = "user" if parent is None else draw(st.sampled_from(["user", "tool"]))
        observation = [Message(role, draw(TEXT), name="look" if role == "tool" else None)]
        if parent is None and draw(st.booleans()):
            observation.insert(0, Message("system", draw(TEXT)))
        turns.append(
            Turn(
                parent,
                tuple(observation),
                draw(actions()),
                tools=(TOOL,) if parent is None and draw(st.booleans()) else (),
                weight=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
            )
        )
    return Trajectory(tuple(turns))


@pytest.fixture(scope="module")
def qwen3(test_data: Path) -> ModelTokenizer:
    return load_tokenizer(test_data / "tokenizers" / "qwen3")


@pytest.fixture(scope="module")
def hub_tokenizer(test_data: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(test_data / "tokenizers" / "qwen3"))


def openai_context(trajectory: Trajectory, index: int) -> list[dict[str, Any]]:
    """The messages before a turn as a client sends them; Qwen3's template takes arguments as objects."""
    turn = trajectory.turns[index]
    messages = [*(trajectory.messages(turn.parent) if turn.parent is not None else []), *turn.observation]
    sent = [message.to_openai() for message in messages]
    for message in sent:
        message["content"] = message["content"] or ""
    return sent


@settings(max_examples=60)
@given(trajectory=trajectories())
def test_every_prompt_is_what_transformers_computes_and_weights_add_up(
    qwen3: ModelTokenizer, hub_tokenizer: Any, trajectory: Trajectory
) -> None:
    rendered = Renderer(qwen3, on_refusal="skip", verify_every=1).render(trajectory)
    tree = rendered.tree
    supervised = [k for k, turn in enumerate(trajectory.turns) if turn.weight]
    assert sorted([t.turn for t in rendered.turns] + [r.turn for r in rendered.refusals]) == supervised
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for turn in rendered.turns:
        ids = tree.sequence_ids(turn.sequence).tolist()
        prompt = hub_tokenizer.apply_chat_template(
            openai_context(trajectory, turn.turn),
            tools=tools_to_openai(trajectory.tools(turn.turn)),
            add_generation_prompt=True,
            return_dict=False,
            **turn.arguments,
        )
        assert ids[: turn.num_prompt_tokens] == prompt
        assert ids[-1] == hub_tokenizer.eos_token_id
        for depth in range(turn.num_prompt_tokens, len(ids)):
            expected[tuple(ids[: depth + 1])] += trajectory.turns[turn.turn].weight
    weights = tree.action_weights()
    found = {path_ids(tree, token): float(weights[token]) for token in np.flatnonzero(weights)}
    assert found == pytest.approx(dict(expected))


@settings(max_examples=60)
@given(trajectory=trajectories())
def test_flat_rows_carry_each_supervised_token_exactly_once(qwen3: ModelTokenizer, trajectory: Trajectory) -> None:
    tree = Renderer(qwen3, on_refusal="skip").render(trajectory).tree
    weights = tree.action_weights()
    rows = list(tree.rows(weights))
    carried = [tuple(ids[: n + 1].tolist()) for ids, row in rows for n in np.flatnonzero(row)]
    assert len(carried) == len(set(carried)) == np.count_nonzero(weights)
    assert sum(float(row.sum()) for _, row in rows) == pytest.approx(float(weights.sum()))


def path_ids(tree: Any, token: int) -> tuple[int, ...]:
    """Walk up by `parent` alone, which is not how the tree was built."""
    ids: list[int] = []
    while token >= 0:
        ids.append(int(tree.ids[token]))
        token = int(tree.parent[token])
    return tuple(reversed(ids))


SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@settings(max_examples=200)
@given(sequences=SEQUENCES, data=st.data())
def test_a_tree_is_the_trie_of_what_was_inserted(sequences: list[list[int]], data: st.DataObject) -> None:
    builder = TokenTreeBuilder()
    spans = []
    for sequence in sequences:
        start = data.draw(st.integers(0, len(sequence) - 1))
        stop = data.draw(st.integers(start + 1, len(sequence)))
        spans.append((start, stop))
        builder.insert(sequence, [Span(SpanKind.ACTION, 0, start, stop, 1.0)])
    tree = builder.build()
    prefixes = {tuple(sequence[: n + 1]) for sequence in sequences for n in range(len(sequence))}
    assert {path_ids(tree, token) for token in range(tree.num_tokens)} == prefixes
    assert tree.num_tokens == len(prefixes)
    assert [tree.sequence_ids(n).tolist() for n in range(len(sequences))] == sequences
    for token in range(tree.num_tokens):
        assert tree.depth[token] == len(path_ids(tree, token)) - 1
        below = {
            other
            for other in range(tree.num_tokens)
            if path_ids(tree, other)[: tree.depth[token] + 1] == path_ids(tree, token)
        }
        assert below == set(range(token, int(tree.end[token])))
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for sequence, (start, stop) in zip(sequences, spans, strict=True):
        for depth in range(start, stop):
            expected[tuple(sequence[: depth + 1])] += 1.0
    weights = tree.action_weights()
    assert {path_ids(tree, t): float(weights[t]) for t in np.flatnonzero(weights)} == dict(expected)
