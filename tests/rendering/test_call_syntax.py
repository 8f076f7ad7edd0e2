"""Calls are read back out of what the templates of real models write for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rendering.chatml import small
from tests.rendering.conversation_shapes import SHAPES
from tests.rendering.test_real_templates import TEMPLATES, stop_table, stops_for, template_source, to_message, tokenizer
from understudy.rendering import Renderer, ServerProfile, from_transformers
from understudy.rendering.call_syntax import derive_call_syntax, split_thinking
from understudy.rendering.refusal import TurnRefused
from understudy.types import Tool

__all__ = ["stop_table", "tokenizer"]  # fixtures

WRITES_CALLS_IN_ITS_OWN_LANGUAGE = ("gemma", "pythonic", "olmo3", "phi4_mini", "toolace", "llama4__axolotl")
"""Templates that write calls as Python or in a notation of their own, which is not read."""

REFUSED_AT_FIRST = ("deepseekv31__vllm", "mistral_small_tool_call__mistralrs")
"""Templates whose first call after a user message the renderer refuses, so that there is nothing to learn from."""


def renderer_for(path: Path, tokenizer: Any, stop_table: list[dict[str, Any]]) -> Renderer:
    source = template_source(path)
    stops = tuple(stop for stop in stops_for(path.stem, stop_table) if stop in source)
    wrapped = from_transformers(tokenizer, name=path.stem, chat_template=source)
    return Renderer(wrapped, ServerProfile(stop_tokens=stops or None))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_call_that_a_template_writes_is_read_back(
    path: Path, tokenizer: Any, stop_table: list[dict[str, Any]]
) -> None:
    renderer = renderer_for(path, tokenizer, stop_table)
    writer = renderer.writer_for([{}])
    syntax = derive_call_syntax(writer, as_text=renderer.profile.tool_arguments == "text")
    num_read = 0
    for messages, tools in SHAPES.values():
        for k, message in enumerate(messages):
            if not message.get("tool_calls"):
                continue
            prepared = [renderer.profile.prepare(to_message(m)) for m in messages[: k + 1]]
            try:
                target = writer.write(prepared[:k], prepared[k], tools).target
            except TurnRefused:
                continue
            if syntax is None:
                unread = (*WRITES_CALLS_IN_ITS_OWN_LANGUAGE, *REFUSED_AT_FIRST)
                assert any(name in path.stem for name in unread), target
                continue
            if syntax.is_bare and message["content"]:
                continue
            text = target.removesuffix(next(s for s in renderer.stops.texts if target.endswith(s)))
            parsed = syntax.parse(split_thinking(text).rest, [Tool.from_openai(tool) for tool in tools or ()])
            expected = [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]
            assert [(call.name, call.arguments) for call in parsed.calls] == expected
            assert (message["content"] or "").strip() in parsed.content
            num_read += 1
    print(path.stem, num_read, "calls")


def test_the_syntax_of_most_templates_that_write_calls_is_found(
    tokenizer: Any, stop_table: list[dict[str, Any]]
) -> None:
    found = 0
    for path in TEMPLATES:
        renderer = renderer_for(path, tokenizer, stop_table)
        as_text = renderer.profile.tool_arguments == "text"
        found += derive_call_syntax(renderer.writer_for([{}]), as_text=as_text) is not None
    assert found >= 60


@pytest.fixture(scope="module")
def qwen3(test_data: Path, tokenizer: Any) -> Renderer:
    source = (test_data / "templates" / "Qwen-Qwen3-0.6B__llamacpp.jinja").read_text()
    return Renderer(from_transformers(tokenizer, name="qwen3", chat_template=source))


@pytest.mark.parametrize(
    "text",
    [
        "just words",
        '<tool_call>\n{"name": "f", "arguments": {"a": 1',
        '<tool_call>\n{"name": "f", "arguments": "a"}\n</tool_call>',
        "<tool_call>\n\n</tool_call>",
        '{"name": "f", "arguments": {}}',
    ],
)
def test_what_is_no_whole_call_stays_text(qwen3: Renderer, text: str) -> None:
    syntax = derive_call_syntax(qwen3.writer_for([{}]))
    assert syntax is not None
    assert (syntax.parse(text).content, syntax.parse(text).calls) == (text, ())


def test_text_before_calls_is_the_content(qwen3: Renderer) -> None:
    syntax = derive_call_syntax(qwen3.writer_for([{}]))
    assert syntax is not None
    arguments = {"code": "</tool_call> <tool_call>", "n": [1, {"x": None}]}
    call = json.dumps({"name": "f", "arguments": arguments})
    parsed = syntax.parse(f"I will.\n<tool_call>\n{call}\n</tool_call>\n<tool_call>{call}</tool_call>")
    assert parsed.content == "I will."
    assert [(call.name, call.arguments) for call in parsed.calls] == [("f", arguments)] * 2


@pytest.mark.parametrize(
    ("text", "is_open", "reasoning", "rest"),
    [
        ("<think>\na\n</think>\n\nb", False, "a", "b"),
        ("a\n</think>\n\nb", True, "a", "b"),
        ("a</think>b", False, "", "a</think>b"),
        ("b", False, "", "b"),
        ("never closed", True, "never closed", ""),
        ("<think>never closed", False, "never closed", ""),
        ("[THINK]a[/THINK]b", False, "a", "b"),
        ("I use <think> as a word", False, "", "I use <think> as a word"),
    ],
)
def test_reasoning_is_parted_from_the_rest(text: str, is_open: bool, reasoning: str, rest: str) -> None:
    thought = split_thinking(text, is_open=is_open)
    assert (thought.reasoning, thought.rest) == (reasoning, rest)


TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}"
    "<call>{{ call.function.name }}{% for key, value in call.function.arguments.items() %}"
    "<arg>{{ key }}</arg><val>{{ value }}</val>{% endfor %}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("written", "schema", "value"),
    [
        ("17", {"type": "string"}, "17"),
        ("17", {"type": "integer"}, 17),
        ("17", {}, 17),
        ("17", True, 17),
        ("17", OPTIONAL, "17"),
        ("null", OPTIONAL, None),
        ("17", {"type": ["string", "null"]}, "17"),
        ("17", {"type": ["string", "integer"]}, 17),
        ("2", {"type": "integer", "enum": [1, 2]}, 2),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("3.5", {"type": "integer"}, 3.5),
        ("['a']", {"type": "array"}, ["a"]),
        ("...", {"type": "integer"}, "..."),
        ("{1, 2}", {}, "{1, 2}"),
        ("b'x'", {}, "b'x'"),
    ],
)
def test_a_tagged_value_has_a_type_that_its_schema_allows_and_json_holds(written: str, schema: Any, value: Any) -> None:
    syntax = derive_call_syntax(Renderer(small(TAGGED)).writer_for(None))
    assert syntax is not None
    tool = Tool.from_openai({"name": "look", "parameters": {"type": "object", "properties": {"at": schema}}})
    (call,) = syntax.parse(f"<call>look<arg>at</arg><val>{written}</val></call>", [tool]).calls
    assert call.arguments == {"at": value}
    assert type(call.arguments["at"]) is type(value)  # type: ignore[index]
    bare = Tool.from_openai({"name": "look", "parameters": {"type": "object", "properties": None}})
    assert syntax.parse(f"<call>look<arg>at</arg><val>{written}</val></call>", [bare]).calls
