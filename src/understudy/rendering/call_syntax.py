"""How a model's own template writes tool calls, found by probing it, and used to read calls out of what a model writes.

A probing turn with two calls is rendered. Around the names and arguments that it is known to hold stand the texts with
which the template opens a call, joins name and arguments, and closes. Two shapes are known: arguments as one JSON
object (Hermes, Llama, Mistral, DeepSeek, Cohere, …), and one tagged value for each argument (Qwen3-Coder, GLM, MiniMax,
…).

What is found is trusted only if it reads other probing turns back exactly; else there is no syntax, and nothing is
guessed. White space may differ, because models vary it and templates trim it.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.types import JSON, Tool, ToolCall

from .continuation import THINKING_BLOCKS, Prepared, TurnWriter
from .refusal import TurnRefused
from .segments import common_prefix_length

_ID = "abcdefghi"
_NAMES = ("qzfirst", "qzsecond")
_TEXT, _NUMBER = "qzvalue", 7531
_KEYS = ("qzkeya", "qzkeyb")
_OBJECT_START = re.compile(r"\s*\{")
_NAME = re.compile(r"[^\s\"'<>(){}\[\],|]+")
_BARE = re.compile(r"[\s\[{]*\"name\"\s*:\s*\"")
_JSON_TYPES: dict[type, tuple[str, ...]] = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    list: ("array",),
    dict: ("object",),
}
"""Python's types, and what JSON schema calls their values; of a text its quotes would be lost."""


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """What a model wrote, without reasoning: text, and the calls after it."""

    content: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model wrote: its reasoning, empty where there is none, and the rest."""

    reasoning: str
    rest: str


@dataclass(frozen=True, slots=True)
class _Tagged:
    """The texts around one argument that is written with a tag of its own: before its key, before and after its value.

    `before_number` differs from `before_text` where the template marks the type of a value.
    """

    before_key: re.Pattern[str]
    before_text: re.Pattern[str]
    before_number: re.Pattern[str]
    after_value: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """The texts around calls, as patterns.

    Args:
        opening: what stands before the first name.
        before_name: what stands before each name.
        before_arguments: what stands between a name and its arguments.
        tagged: how arguments are written; None for one JSON object.
        is_bare: nothing marks the calls but JSON itself, so they must be all of the text.
    """

    opening: re.Pattern[str]
    before_name: re.Pattern[str]
    before_arguments: re.Pattern[str]
    tagged: _Tagged | None
    is_bare: bool

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedOutput:
        """Read the calls in a text. What cannot be read as calls stays text.

        Args:
            text: what the model wrote, without reasoning and stop token.
            tools: their schemas say which tagged values are texts.
        """
        opened = self.opening.search(text)
        if opened is None or (self.is_bare and text[: opened.start()].strip()):
            return ParsedOutput(text)
        schemas = {tool.name: tool.parameters.get("properties") for tool in tools}
        calls: list[ToolCall] = []
        named_from: int | None = opened.end()
        while named_from is not None:
            joined = self.before_arguments.search(text, named_from)
            if joined is None:
                return ParsedOutput(text)
            name = text[named_from : joined.start()]
            read = self._arguments(text, joined, schemas.get(name) or {})
            if read is None or _NAME.fullmatch(name) is None:
                return ParsedOutput(text)
            arguments, end = read
            calls.append(ToolCall(name, arguments))
            following = self.before_name.search(text, end)
            named_from = following.end() if following else None
        return ParsedOutput(text[: opened.start()].strip(), tuple(calls))

    def _arguments(
        self, text: str, joined: re.Match[str], properties: Mapping[str, Any]
    ) -> tuple[str | dict[str, JSON], int] | None:
        """Return the arguments that stand after `joined`, and where they end."""
        if self.tagged is not None:
            return _read_tagged(text, joined.end(), self.tagged, properties)
        start = _OBJECT_START.match(text, joined.end())
        if start is None:
            return None
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(text, start.end() - 1)
        except (ValueError, RecursionError):
            return None
        return (value, end) if isinstance(value, dict) else None


def derive_call_syntax(writer: TurnWriter, *, as_text: bool = False) -> CallSyntax | None:
    """Return how the writer's template writes calls; None where it writes none, or in a way that is not understood.

    Args:
        as_text: give the template the arguments as JSON text, as the server profile says.
    """
    probes = [
        [(_NAMES[0], {_KEYS[0]: _TEXT, _KEYS[1]: _NUMBER}), (_NAMES[1], {_KEYS[0]: _TEXT, _KEYS[1]: _NUMBER})],
        [(_NAMES[0], {_KEYS[0]: _TEXT, _KEYS[1]: _NUMBER})],
    ]
    for probe in probes:
        target = _target(writer, "", probe, as_text=as_text)
        syntax = _find(target, len(probe)) if target is not None else None
        if syntax is not None and _reads_back(syntax, writer, num_calls=len(probe), as_text=as_text):
            return syntax
    return None


def _target(
    writer: TurnWriter, content: str, calls: Sequence[tuple[str, dict[str, JSON]]], *, as_text: bool
) -> str | None:
    """Return what the template writes for a turn with these calls; None where it refuses."""
    user: Prepared = {"role": "user", "content": "qzuserq"}
    contexts = [[user], [{"role": "system", "content": "qzsystemq"}, user]]
    tools = [probe_tool(name).definition for name in _NAMES]
    message: Prepared = {"role": "assistant", "content": content, "tool_calls": []}
    for i, (name, arguments) in enumerate(calls):
        given: Any = json.dumps(arguments) if as_text else arguments
        message["tool_calls"].append(
            {"type": "function", "id": _ID[:-1] + "ijk"[i], "function": {"name": name, "arguments": given}}
        )
    thoughts: list[Prepared] = [{}, {"reasoning_content": "qzreasonq", "thinking": "qzreasonq"}]
    for context, reasoning in itertools.product(contexts, thoughts):
        try:
            target = writer.write(context, message | reasoning, tools).target
        except TurnRefused:
            continue
        return split_thinking(target, is_open=bool(reasoning)).rest
    return None


def split_thinking(text: str, *, is_open: bool = False) -> Thought:
    """Part a model's output into reasoning and the rest.

    Args:
        is_open: the prompt has opened a thinking block already. Without its close, all of the text is reasoning.
    """
    for opening, closing in THINKING_BLOCKS:
        head, closed, rest = text.partition(closing)
        begins = head.lstrip().startswith(opening)
        if closed and (begins or is_open or not head.strip()):
            return Thought(head.lstrip().removeprefix(opening).strip("\n"), rest.lstrip("\n"))
        if not closed and begins:
            return Thought(head.lstrip().removeprefix(opening).strip("\n"), "")
    return Thought(text.strip("\n"), "") if is_open else Thought("", text)


def probe_tool(name: str) -> Tool:
    """Return a tool that takes a text and a number."""
    properties = {_KEYS[0]: {"type": "string"}, _KEYS[1]: {"type": "integer"}}
    parameters = {"type": "object", "properties": properties, "required": list(_KEYS)}
    return Tool({"type": "function", "function": {"name": name, "description": "qz", "parameters": parameters}})


def _find(target: str, num_calls: int) -> CallSyntax | None:
    """Take a probing target with one or two calls apart."""
    places = [target.find(name) for name in _NAMES[:num_calls]]
    if min(places) < 0:
        return None
    opening, start = target[: places[0]], places[0] + len(_NAMES[0])
    found = _json_arguments(target, start) or _tagged_arguments(target, start)
    if found is None:
        return None
    before_arguments, tagged, end = found
    if num_calls == 2:
        between = target[end : places[1]]
        before_name = between[len(between) - _common_suffix_length(opening, between) :]
    else:
        before_name = opening
    if not before_name.strip() or not before_arguments.strip():
        return None
    return CallSyntax(
        opening=_pattern(opening),
        before_name=_pattern(before_name),
        before_arguments=_pattern(before_arguments),
        tagged=tagged,
        is_bare=_BARE.fullmatch(opening) is not None,
    )


def _json_arguments(target: str, start: int) -> tuple[str, None, int] | None:
    """Return the text before the JSON arguments of the first call, and where they end."""
    at = target.find("{", start)
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(target, at)
        except ValueError:
            value, end = None, at
        if value == {_KEYS[0]: _TEXT, _KEYS[1]: _NUMBER}:
            return target[start:at], None, end
        at = target.find("{", at + 1)
    return None


def _tagged_arguments(target: str, start: int) -> tuple[str, _Tagged, int] | None:
    """Return the text before the tagged arguments of the first call, their tags, and where they end."""
    places = []
    at = start
    for word in (_KEYS[0], _TEXT, _KEYS[1], str(_NUMBER)):
        at = target.find(word, at)
        if at < 0:
            return None
        places.append((at, at + len(word)))
        at += len(word)
    (key1, key1_end), (text, text_end), (key2, key2_end), (number, number_end) = places
    # Both values are followed by the same text, and both keys stand behind the same text.
    before_first, between = target[start:key1], target[text_end:key2]
    after_value = between[: common_prefix_length(between, target[number_end:])]
    before_key = between[len(after_value) :]
    if not after_value.strip() or not before_key.strip() or not before_first.endswith(before_key):
        return None
    before_arguments = before_first.removesuffix(before_key)
    tagged = _Tagged(
        before_key=_pattern(before_key),
        before_text=_pattern(target[key1_end:text], keeps_edges=True),
        before_number=_pattern(target[key2_end:number], keeps_edges=True),
        after_value=_pattern(after_value, keeps_edges=True),
    )
    return before_arguments, tagged, number_end + len(after_value)


def _read_tagged(
    text: str, start: int, tagged: _Tagged, properties: Mapping[str, Any]
) -> tuple[dict[str, JSON], int] | None:
    """Read tagged arguments from `start` on; return them, and where they end."""
    arguments: dict[str, JSON] = {}
    at = start
    while (opened := tagged.before_key.match(text, at)) is not None:
        is_text, matched = True, tagged.before_text.search(text, opened.end())
        other = tagged.before_number.search(text, opened.end())
        if other is not None and (matched is None or other.start() < matched.start()):
            is_text, matched = False, other
        ended = tagged.after_value.search(text, matched.end()) if matched is not None else None
        if matched is None or ended is None:
            return None
        key = text[opened.end() : matched.start()]
        value = text[matched.end() : ended.start()]
        is_marked = tagged.before_text.pattern != tagged.before_number.pattern
        arguments[key] = value if is_marked and is_text else _typed(value, properties.get(key, {}))
        at = ended.end()
    return arguments, at


def _typed(value: str, schema: Any) -> JSON:
    """Return a tagged value as its schema has it: text where only that fits, else JSON where it is that."""
    types = _types_of(schema)
    if types == {"string"}:
        return value
    found = [one for one in _readings(value) if _is_json(one)]
    for one in found:
        if types is None or not types.isdisjoint(_JSON_TYPES.get(type(one), ())):
            return one
    return value if not found or (types is not None and "string" in types) else found[0]


def _types_of(schema: Any) -> set[str] | None:
    """Return the types that a schema allows; None where it does not say."""
    if not isinstance(schema, Mapping):
        return None
    if isinstance(schema.get("enum"), list):
        return {name for item in schema["enum"] for name in _JSON_TYPES.get(type(item), ("string",))}
    types = schema.get("type")
    if isinstance(types, str | list):
        return {types} if isinstance(types, str) else set(map(str, types))
    options = schema.get("anyOf") or schema.get("oneOf")
    if not isinstance(options, list):
        return None
    each = [_types_of(option) for option in options]
    return None if None in each else {name for types in each if types is not None for name in types}


def _readings(value: str) -> Iterator[Any]:
    """Yield what a text stands for as JSON, and as Python: some templates print lists and objects so."""
    for read in (json.loads, ast.literal_eval):
        try:
            yield read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue


def _is_json(value: Any) -> bool:
    """Say whether JSON can hold a value: Python also reads ``...``, sets, bytes, and objects with numbers for keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
    return (
        all(map(_is_json, value)) if isinstance(value, list) else value is None or isinstance(value, str | int | float)
    )


def _reads_back(syntax: CallSyntax, writer: TurnWriter, *, num_calls: int, as_text: bool) -> bool:
    """Say whether probing turns of other content are read exactly: with escapes, and with text before the calls."""
    awkward = 'qz "a" <b> {c}\nd'
    turns: list[tuple[str, list[tuple[str, dict[str, JSON]]]]] = [
        ("", [(_NAMES[0], {_KEYS[0]: awkward, _KEYS[1]: -2})]),
        ("", [(_NAMES[1], {_KEYS[0]: "x", _KEYS[1]: 1}), (_NAMES[0], {_KEYS[0]: awkward, _KEYS[1]: 3})]),
        ("qzcontentq.", [(_NAMES[1], {_KEYS[0]: "x y", _KEYS[1]: 0})]),
    ]
    tools = [probe_tool(name) for name in _NAMES]
    for content, calls in turns:
        if len(calls) > num_calls or (content and syntax.is_bare):
            continue
        target = _target(writer, content, calls, as_text=as_text)
        if target is None:
            continue
        parsed = syntax.parse(target, tools)
        if [(call.name, call.arguments) for call in parsed.calls] != calls or content not in parsed.content:
            return False
    return True


def _pattern(text: str, *, keeps_edges: bool = False) -> re.Pattern[str]:
    """Return a pattern that matches a text with any white space where it has some, and any id where it has the probe's
    or a number in quotes.

    Args:
        keeps_edges: at the ends, only the very white space of the text is matched: what is beyond belongs to a value.
    """
    pieces = [re.escape(piece) for piece in re.split(r"\s+", text.strip())]
    middle = re.sub(rf"{_ID[:-1]}[ijk]", r"[^\\s\"'<>\\[\\]{}|]+?", r"\s*".join(pieces))
    middle = re.sub(r'"\d+"', r'"\\w*"', middle)
    if not keeps_edges:
        return re.compile(rf"\s*{middle}\s*")
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    edges = [f"(?:{re.escape(edge)})?" if edge else "" for edge in (before, after)]
    return re.compile(edges[0] + middle + edges[1])


def _common_suffix_length(a: str, b: str) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[-1 - length] == b[-1 - length]:
        length += 1
    return length
