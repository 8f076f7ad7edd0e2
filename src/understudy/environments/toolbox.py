"""Python functions as tools: the schema from the signature, the checks from the schema.

The first paragraph of a function's docstring describes the tool, its ``Args:`` section the arguments, and the type
hints make the JSON schema. A call that does not fit the schema, or that the function refuses with `ToolError`, is
answered with a text that begins with ``Error:``: that is the agent's to deal with, and no fault of the environment.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from understudy.errors import did_you_mean
from understudy.types import JSON, Message, Tool, ToolCall
from understudy.types.fields import kind

_JSON_TYPES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object"}

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class ToolError(Exception):
    """Raised by a tool to refuse a call. Its text is what the agent reads."""


class Toolbox:
    """The tools of an environment.

    Args:
        functions: what can be called; each takes keyword arguments and returns the text of the result.

    Raises:
        ValueError: two functions have one name, or a signature cannot be put into a JSON schema.
    """

    def __init__(self, *functions: Callable[..., str]) -> None:
        self.functions = {function.__name__: function for function in functions}
        if len(self.functions) != len(functions):
            raise ValueError("two tools have the same name")
        self.tools = tuple(tool_from_function(function) for function in functions)
        self._schemas = {tool.name: tool.parameters for tool in self.tools}

    def call(self, call: ToolCall) -> str:
        """Run one call and return the text of its result; a refused call returns ``Error: …``."""
        if call.name not in self.functions:
            return f"Error: there is no tool {call.name!r}.{did_you_mean(call.name, self.functions)}"
        try:
            arguments = call.parsed_arguments()
        except ValueError as error:
            return f"Error: the arguments are not a JSON object: {error}"
        problem = first_problem(arguments, self._schemas[call.name])
        if problem is not None:
            return f"Error: {problem}"
        try:
            return self.functions[call.name](**arguments)
        except ToolError as error:
            return f"Error: {error}"


def call_all(toolbox: Toolbox, message: Message, *, is_over: Callable[[], bool]) -> tuple[Message, ...]:
    """Run all calls of a message in order and return their results. What comes after the episode's end is not run."""
    results = []
    for call in message.tool_calls:
        content = "Error: the episode is over" if is_over() else toolbox.call(call)
        results.append(Message("tool", content, tool_call_id=call.id, name=call.name))
    return tuple(results)


def tool_from_function(function: Callable[..., Any]) -> Tool:
    """Return the OpenAI schema of a function.

    Raises:
        ValueError: a parameter has no type hint that JSON schema can express, or takes any number of arguments.
    """
    description, arguments = _read_docstring(inspect.getdoc(function) or "")
    hints = get_type_hints(function)
    properties: dict[str, JSON] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name not in hints:
            raise ValueError(f"{function.__name__}: parameter {name!r} needs a type hint, and no * before it")
        described = {"description": arguments[name]} if name in arguments else {}
        properties[name] = _schema(hints[name], f"{function.__name__}: parameter {name!r}") | described
        if parameter.default is parameter.empty:
            required.append(name)
    parameters = {"type": "object", "properties": properties, "required": required}
    definition = {"name": function.__name__, "description": description, "parameters": parameters}
    return Tool({"type": "function", "function": definition})


def first_problem(value: JSON, schema: Mapping[str, JSON], place: str = "") -> str | None:
    """Say what first does not fit in a value; None when it fits.

    Knows the keywords that `tool_from_function` writes: type, enum, anyOf, properties, required, items. Properties that
    the schema does not name are refused.
    """
    name = place or "the arguments"
    if "anyOf" in schema:
        problems = [first_problem(value, option, place) for option in schema["anyOf"]]
        return None if None in problems else problems[0]
    expected = _PYTHON_TYPES.get(schema.get("type", ""))
    is_bool_for_number = isinstance(value, bool) and schema.get("type") in ("integer", "number")
    if expected is not None and (not isinstance(value, expected) or is_bool_for_number):
        return f"{name} should be of type {schema['type']}, not {kind(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} should be one of {', '.join(map(str, schema['enum']))}, not {value!r}"
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        for key in schema.get("required", ()):
            if key not in value:
                return f"{_join(place, key)} is missing"
        for key, item in value.items():
            if key not in known:
                return f"{_join(place, key)} is not a parameter.{did_you_mean(key, known)}"
            problem = first_problem(item, known[key], _join(place, key))
            if problem is not None:
                return problem
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            problem = first_problem(item, schema["items"], f"{place}[{i}]")
            if problem is not None:
                return problem
    return None


def _schema(hint: Any, place: str) -> dict[str, JSON]:
    """Return the JSON schema of a type hint."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _JSON_TYPES or origin is dict:
        return {"type": _JSON_TYPES.get(hint, "object")}
    if origin is Literal:
        names = {_JSON_TYPES.get(type(value)) for value in arguments}
        if len(names) == 1 and None not in names:
            return {"type": names.pop(), "enum": list(arguments)}
    if origin is list and len(arguments) == 1:
        return {"type": "array", "items": _schema(arguments[0], place)}
    if hint is type(None):
        return {"type": "null"}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, place) for argument in arguments]}
    raise ValueError(f"{place}: the type hint {hint!r} cannot be put into a JSON schema")


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the first paragraph, and what the ``Args:`` section says of each argument."""
    head, _, rest = text.partition("\n\n")
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", rest, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section.group(1), re.MULTILINE) if section else []
    return " ".join(head.split()), {name: " ".join(described.split()) for name, described in found}


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
