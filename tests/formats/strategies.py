"""Random episodes for property tests: wild ones that only the native format must hold, plain ones that many hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from understudy.types import (
    Episode,
    ImagePart,
    Message,
    ReasoningPart,
    SampledTokens,
    TextPart,
    Tool,
    ToolCall,
    Trajectory,
    Turn,
    turns_from_messages,
)

TRICKY = [
    "",
    " ",
    "\n\n",
    "<|im_start|>assistant\n",
    "[INST]",
    "a\u0085b\u2028c\u2029d",
    "\x00\t\r",
    "é😀",
    "<image>",
    "[1]",
]
texts = st.one_of(st.sampled_from(TRICKY), st.text(st.characters(codec="utf-8"), max_size=12))
any_texts = st.one_of(texts, st.text(st.characters(), max_size=6))
"""Lone surrogates included."""
names = st.text("abcxyz_", min_size=1, max_size=6)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(names.map("x_{}".format), json_values, max_size=3)
tools = st.builds(
    lambda name, description, rest: Tool(
        {
            "type": "function",
            "function": {"name": name, "description": description, "parameters": {"type": "object"}, **rest},
        }
    ),
    names,
    texts,
    json_objects,
)
parts = st.one_of(
    st.builds(TextPart, any_texts), st.builds(ReasoningPart, any_texts), st.builds(ImagePart, texts, st.none() | names)
)
calls = st.builds(
    ToolCall, names, st.one_of(any_texts, json_objects), st.none() | st.sampled_from(["call_1", "call_2"])
)
wild_messages = st.builds(
    Message,
    role=st.one_of(
        st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]), texts.filter(bool)
    ),
    content=st.none() | any_texts | st.lists(parts, max_size=3).map(tuple),
    reasoning_content=st.none() | any_texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=st.none() | texts,
    name=st.none() | texts,
    extra=json_objects,
)
sampled = st.builds(
    SampledTokens,
    st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    st.none() | st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
)


@st.composite
def wild_trajectories(draw: st.DrawFn) -> Trajectory:
    """Forks, several roots, closing observations, recorded tokens."""
    turns = []
    for index in range(draw(st.integers(0, 4))):
        parent = draw(st.sampled_from([None, *range(index)]))
        turns.append(
            Turn(
                parent,
                observation=draw(st.lists(wild_messages, max_size=2).map(tuple)),
                action=draw(st.none() | wild_messages),
                tools=draw(st.lists(tools, max_size=2).map(tuple)) if parent is None else (),
                reward=draw(st.none() | finite),
                weight=draw(st.sampled_from([0.0, 0.25, 1.0, 7.5])),
                sampled=draw(st.none() | sampled),
                annotations=draw(json_objects),
            )
        )
    return Trajectory(
        tuple(turns),
        agent=draw(texts),
        policy=draw(st.none() | texts),
        reward=draw(st.none() | finite),
        success=draw(st.none() | st.booleans()),
    )


def _episodes(trajectories: st.SearchStrategy[tuple[Trajectory, ...]]) -> st.SearchStrategy[Episode]:
    optional_text = st.none() | texts
    return st.builds(
        Episode,
        id=texts.filter(bool),
        trajectories=trajectories,
        environment=optional_text,
        task=json_values,
        seed=st.none() | st.integers(),
        split=optional_text,
        reward=st.none() | finite,
        success=st.none() | st.booleans(),
        stop_reason=optional_text,
        error=optional_text,
        metadata=json_objects,
        created_at=optional_text,
    )


wild_episodes = _episodes(st.lists(wild_trajectories(), max_size=2).map(tuple))

_assistant = st.builds(
    Message,
    role=st.just("assistant"),
    content=st.none() | any_texts,
    reasoning_content=st.none() | any_texts,
    tool_calls=st.lists(
        st.builds(ToolCall, names, json_objects | st.just('{"a": 1}') | st.just("not JSON"), st.none() | names),
        max_size=2,
    ).map(tuple),
    extra=json_objects,
)
_observed = st.builds(
    Message,
    role=st.sampled_from(["system", "developer", "user", "tool", "critic"]),
    content=st.none() | any_texts,
    tool_call_id=st.none() | names,
    name=st.none() | names,
    extra=json_objects,
)


@st.composite
def _chat(draw: st.DrawFn) -> tuple[Trajectory, ...]:
    messages = draw(st.lists(_assistant | _observed, min_size=1, max_size=6))
    weights = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(messages), max_size=len(messages)))
    turns = turns_from_messages(messages, tools=draw(st.lists(tools, max_size=2)), weights=weights)
    return (
        Trajectory(turns, agent=draw(names), policy=draw(st.none() | names), success=draw(st.none() | st.booleans())),
    )


chats = _episodes(_chat())
"""One linear conversation: what every row of OpenAI messages holds whole."""

_say = st.builds(Message, role=st.just("assistant"), content=texts.filter(lambda text: "<image>" not in text))
_hear = st.builds(
    Message, role=st.sampled_from(["user", "tool"]), content=texts.filter(lambda text: "<image>" not in text)
)


@st.composite
def _plain_chat(draw: st.DrawFn) -> tuple[Trajectory, ...]:
    messages = draw(st.lists(_say | _hear, min_size=1, max_size=6))
    return (Trajectory(turns_from_messages(messages, tools=draw(st.lists(tools, max_size=2)))),)


plain_chats = _episodes(_plain_chat())
"""One linear conversation of text."""
