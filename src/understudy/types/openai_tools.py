"""Tools as the world writes them, read into ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from understudy.errors import FormatError

from .fields import kind, parse_json
from .message import JSON, Tool

_SUBSCHEMAS = frozenset({"items", "additionalProperties", "not", "contains", "if", "then", "else"})
_SUBSCHEMA_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SUBSCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})


def tools_from_openai(value: JSON, field: str = "tools") -> tuple[Tool, ...]:
    """Read tools: a list or JSON text of one, each wrapped in ``function`` or flat; None, ``""`` and ``[]`` are none.

    The schema type ``"dict"`` becomes ``"object"``; everything else is kept as it is.

    Raises:
        FormatError: the text is not JSON, or a tool has no name.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        try:
            return _tools_from_text(value)
        except FormatError as error:
            raise error.at(field=field) from error.__cause__
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise FormatError(f"tools are a list, not {kind(value)}", field=field)
    return tuple(_tool(tool, f"{field}[{i}]") for i, tool in enumerate(value))


@lru_cache(maxsize=128)
def _tools_from_text(text: str) -> tuple[Tool, ...]:
    """Parse the JSON text of tools. Rows of one source mostly share theirs, so equal texts share one result."""
    if not text.strip():
        return ()
    value = parse_json(text, "", "tools")
    if isinstance(value, str):
        value = parse_json(value, "", "tools")
    if isinstance(value, str):
        raise FormatError("tools are JSON text within JSON text, more than once")
    return tools_from_openai(value, "")


def _tool(value: JSON, field: str) -> Tool:
    if isinstance(value, Tool):
        return value
    if isinstance(value, str):
        value = parse_json(value, field, "a tool")
    if not isinstance(value, Mapping):
        raise FormatError(f"a tool is an object, not {kind(value)}", field=field)
    try:
        tool = Tool.from_openai(value)
    except ValueError:
        mend = 'write {"type": "function", "function": {"name": …, "parameters": {…}}}'
        raise FormatError("a tool needs a name", field=field, mend=mend) from None
    function = tool.definition["function"]
    parameters = function.get("parameters")
    standard = _standard_schema(parameters)
    if standard is parameters:
        return tool
    return Tool({**tool.definition, "function": {**function, "parameters": standard}})


def _standard_schema(schema: JSON) -> JSON:
    """Return the JSON schema with type ``"dict"`` written ``"object"``; the very same object when nothing changes."""
    if not isinstance(schema, dict):
        return schema
    out = dict(schema)
    for key, value in schema.items():
        if key == "type" and value == "dict":
            out[key] = "object"
        elif key in _SUBSCHEMAS:
            out[key] = _standard_schema(value)
        elif key in _SUBSCHEMA_MAPS and isinstance(value, dict):
            inner = {name: _standard_schema(child) for name, child in value.items()}
            out[key] = inner if any(inner[name] is not value[name] for name in value) else value
        elif key in _SUBSCHEMA_LISTS and isinstance(value, list):
            items = [_standard_schema(child) for child in value]
            out[key] = items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return out if any(out[key] is not schema[key] for key in schema) else schema
