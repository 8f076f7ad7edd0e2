"""Python functions as tools, held against the `jsonschema` package."""

from __future__ import annotations

from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.environments import Toolbox, ToolError
from understudy.environments.toolbox import first_problem, tool_from_function
from understudy.types import ToolCall


def book(city: str, days: int, *, kind: Literal["bed", "room"] = "bed", tags: list[str] | None = None) -> str:
    """Book a place
    to sleep.

    More that the agent does not read.

    Args:
        city: where to
        days: how long,
            in nights

    Raises:
        ToolError: never.
    """
    if days > 30:
        raise ToolError("too long")
    return f"{city} {days} {kind} {tags}"


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where to"},
        "days": {"type": "integer", "description": "how long, in nights"},
        "kind": {"type": "string", "enum": ["bed", "room"]},
        "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
    },
    "required": ["city", "days"],
}


def test_a_schema_comes_from_signature_and_docstring() -> None:
    tool = tool_from_function(book)
    assert (tool.name, tool.description, tool.parameters) == ("book", "Book a place to sleep.", SCHEMA)


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"city": "Rome", "days": 2}, "Rome 2 bed None"),
        ('{"city": "Rome", "days": 2, "tags": ["a"]}', "Rome 2 bed ['a']"),
        ({"city": "Rome"}, "Error: days is missing"),
        ({"city": "Rome", "days": "2"}, "Error: days should be of type integer, not text"),
        ({"city": "Rome", "days": True}, "Error: days should be of type integer, not true or false"),
        ({"city": "Rome", "days": 2, "kind": "tent"}, "Error: kind should be one of bed, room, not 'tent'"),
        ({"city": "Rome", "days": 2, "kindd": "bed"}, "Error: kindd is not a parameter. Did you mean 'kind'?"),
        ({"city": "Rome", "days": 2, "tags": [1]}, "Error: tags[0] should be of type string, not a number"),
        ({"city": "Rome", "days": 31}, "Error: too long"),
    ],
)
def test_calls_are_checked_before_they_run(arguments: Any, result: str) -> None:
    assert Toolbox(book).call(ToolCall("book", arguments)) == result


def test_broken_json_and_unknown_tools_are_answered() -> None:
    box = Toolbox(book)
    for broken in ("{", '{"a": ' * 100_000):
        assert box.call(ToolCall("book", broken)).startswith("Error: the arguments are not a JSON object")
    assert box.call(ToolCall("bock", {})) == "Error: there is no tool 'bock'. Did you mean 'book'?"


def test_functions_that_make_no_schema_are_refused() -> None:
    def no_hint(a) -> str: ...  # type: ignore[no-untyped-def,empty-body]

    def any_number(*a: str) -> str: ...  # type: ignore[empty-body]

    def odd(a: set[str]) -> str: ...  # type: ignore[empty-body]

    for function in (no_hint, any_number, odd):
        with pytest.raises(ValueError, match="parameter 'a'"):
            tool_from_function(function)
    with pytest.raises(ValueError, match="same name"):
        Toolbox(book, book)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2).filter(lambda x: not x.is_integer())
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["city", "days", "kind", "tags", "x"]), inner)
    ),
    max_leaves=6,
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "city": st.text(max_size=2) | json_values,
        "days": st.integers() | json_values,
        "kind": st.sampled_from(["bed", "room", "tent"]) | json_values,
        "tags": st.lists(st.text(max_size=2), max_size=2) | json_values,
        "x": json_values,
    },
)


@given(arguments)
def test_the_check_agrees_with_jsonschema(value: dict[str, Any]) -> None:
    strict = jsonschema.Draft202012Validator(SCHEMA | {"additionalProperties": False})
    assert (first_problem(value, SCHEMA) is None) == strict.is_valid(value)
