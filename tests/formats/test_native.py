"""Native rows: versioned, compact, strict, and described by a schema made from the types."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import get_format
from understudy.formats.native import json_schema
from understudy.types import SCHEMA_VERSION, Episode, Message, ToolCall

from .rows import EXAMPLE_ROWS

NATIVE = get_format("native")


def test_a_simple_chat_is_a_compact_row() -> None:
    chat = [Message("user", "q"), Message("assistant", tool_calls=(ToolCall("f", "{}"),))]
    assert NATIVE.encode(Episode.from_messages(chat, id="e", reward=1)).rows == [
        {
            "schema_version": 1,
            "id": "e",
            "trajectories": [
                {
                    "turns": [
                        {
                            "parent": None,
                            "observation": [{"role": "user", "content": "q"}],
                            "action": {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]},
                        }
                    ]
                }
            ],
            "reward": 1,
        }
    ]


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "1", None, True, 1.5])
def test_an_unknown_version_is_refused_with_the_mend(version: Any) -> None:
    with pytest.raises(FormatError, match="schema version") as caught:
        NATIVE.decode({"schema_version": version, "id": "e"}, id="")
    assert "version of Understudy" in str(caught.value.mend)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("id", None, "id: expected text, not null"),
        ("rewrd", 1.0, "rewrd: unknown field. Did you mean 'reward'?"),
        ("reward", float("nan"), "reward: expected a finite number, not nan"),
        ("reward", True, "reward: expected a number or null, not true or false"),
        ("success", 1, "success: expected true or false or null, not a number"),
        ("seed", 1.5, "seed: expected a whole number, not 1.5"),
        ("trajectories", {}, "trajectories: expected a list, not an object"),
        ("trajectories.0.turns.0.action.role", 5, "trajectories[0].turns[0].action.role: expected text, not a number"),
        ("trajectories.0.turns.0.observation.0.content.0.type", "video", "content[0].type: unknown type 'video'"),
        ("trajectories.0.turns.1.parent", 1, "trajectories[0]: turns[1].parent is 1: not an earlier turn"),
        ("trajectories.0.turns.0.sampled.prompt_ids", [1, -1], "sampled: prompt_ids: a token id is a number from 0"),
        ("trajectories.0.turns.0.sampled.output_ids", [2**31], "sampled: output_ids: a token id is a number from 0"),
        ("trajectories.0.turns.0.sampled.prompt_ids", [1, "2"], "sampled.prompt_ids[1]: expected a whole number"),
        ("trajectories.0.turns.0.annotations", [], "annotations: expected an object, not a list"),
    ],
)
def test_a_wrong_field_is_named_to_the_last_index(path: str, value: Any, said: str) -> None:
    (row,) = EXAMPLE_ROWS["native"]
    broken = _replaced(row, path.split("."), value)
    with pytest.raises(FormatError, match=re.escape(said)):
        NATIVE.decode(broken, id="")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(FormatError, match="id: the field is missing"):
        NATIVE.decode({"schema_version": 1}, id="")


def test_the_schema_describes_every_field_and_allows_no_other() -> None:
    schema = json_schema()
    assert schema["properties"].keys() == {field.name for field in dataclasses.fields(Episode)}
    assert schema["required"] == ["id", "schema_version"]
    for name in ("Trajectory", "Turn", "Message", "ToolCall", "Tool", "SampledTokens", "ImagePart"):
        assert schema["$defs"][name]["additionalProperties"] is False


def _replaced(value: Any, path: list[str], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, list):
        return [_replaced(item, path[1:], new) if str(i) == path[0] else item for i, item in enumerate(value)]
    return {**value, path[0]: _replaced(value.get(path[0]), path[1:], new)}
