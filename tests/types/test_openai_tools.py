"""Tools by every spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.types import Tool, tools_from_openai

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
WRAPPED = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize("value", [None, "", "  ", "[]", [], ()])
def test_no_tools_by_any_spelling(value: Any) -> None:
    assert tools_from_openai(value) == ()


@pytest.mark.parametrize(
    "value",
    [
        [WRAPPED],
        [FUNCTION],
        [{"type": "function", **FUNCTION}],
        [{"function": FUNCTION}],
        json.dumps([WRAPPED]),
        json.dumps(json.dumps([FUNCTION])),
        [json.dumps(FUNCTION)],
        WRAPPED,
    ],
)
def test_one_tool_by_every_spelling(value: Any) -> None:
    assert tools_from_openai(value) == (Tool(WRAPPED),)


def test_a_tool_is_kept_whole_and_in_order_because_templates_print_it() -> None:
    tool = {"function": {"strict": True, "name": "f"}, "type": "function", "x": 1}
    assert json.dumps(tools_from_openai([tool])[0].definition) == json.dumps(tool)


def test_the_schema_type_dict_is_object_wherever_a_schema_stands_and_nowhere_else() -> None:
    parameters = {
        "type": "dict",
        "properties": {"type": {"type": "dict", "properties": {}}, "b": {"type": "array", "items": {"type": "dict"}}},
        "anyOf": [{"type": "dict"}],
        "default": {"type": "dict"},
        "enum": ["dict"],
    }
    given = [{"name": "f", "parameters": parameters}]
    before = json.dumps(given)
    schema = tools_from_openai(given)[0].parameters
    assert schema["type"] == schema["properties"]["type"]["type"] == "object"
    assert schema["properties"]["b"]["items"] == schema["anyOf"][0] == {"type": "object"}
    assert (schema["default"], schema["enum"]) == ({"type": "dict"}, ["dict"])
    assert json.dumps(given) == before, "the row itself is left alone"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (5, "tools"),
        ("{oops", "tools"),
        ([5], "tools[0]"),
        ([{"parameters": {}}], "tools[0]"),
        ([WRAPPED, {"type": "web_search"}], "tools[1]"),
        ('[{"x": 1}]', "tools[0]"),
    ],
)
def test_a_refusal_names_the_very_tool(value: Any, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        tools_from_openai(value)
    assert caught.value.field == field
