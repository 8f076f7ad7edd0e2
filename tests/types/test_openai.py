"""Every spelling of a message that real rows hold, each with one meaning or a refusal that says where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.types import (
    Episode,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    message_from_openai,
    message_to_row,
    message_weight,
    messages_from_openai,
)


def read(**fields: Any) -> Message:
    return message_from_openai({"role": "assistant", **fields})


def refusal(value: Any, field: str = "") -> FormatError:
    with pytest.raises(FormatError) as caught:
        message_from_openai(value, field)
    return caught.value


@pytest.mark.parametrize("content", [None, "", "text", " \n", "<|im_start|>user\n[INST]", "a\u0085b\u2028c"])
def test_text_content_is_kept_as_it_is(content: str | None) -> None:
    assert read(content=content).content == content


def test_absent_content_is_none_and_not_empty_text() -> None:
    assert read().content is None
    assert read(content=[]).content is None


def test_parts_by_any_key_become_parts() -> None:
    message = read(
        content=[
            "plain",
            {"type": "text", "text": "a"},
            {"type": "text", "value": "b"},
            {"text": "c"},
            {"type": "image_url", "image_url": {"url": "http://i", "detail": "low"}},
            {"type": "image_url", "value": "i.png"},
            {"type": "image", "image": "j.png"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
        ]
    )
    assert message.content == (
        TextPart("plain"),
        TextPart("a"),
        TextPart("b"),
        TextPart("c"),
        ImagePart("http://i", "low"),
        ImagePart("i.png"),
        ImagePart("j.png"),
        ImagePart("data:image/jpeg;base64,QUJD"),
    )


def test_a_single_text_part_is_text() -> None:
    assert read(content=[{"type": "text", "value": "hi"}]).content == "hi"


def test_keys_of_a_part_that_have_no_field_are_kept_and_written_back() -> None:
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    message = message_from_openai({"role": "user", "content": [part, {"type": "text", "text": "b"}]})
    assert message.extra == {"content[0]": {"cache_control": {"type": "ephemeral"}}}
    assert message_to_row(message)["content"][0] == part


def test_a_leading_reasoning_part_is_the_reasoning() -> None:
    message = read(content=[{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "a"}])
    assert (message.reasoning_content, message.content) == ("hm", "a")


def test_reasoning_between_other_parts_stays_a_part() -> None:
    message = read(content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "hm"}])
    assert message.content == (TextPart("a"), ReasoningPart("hm"))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_read_from_each_of_its_keys(key: str) -> None:
    assert read(content="a", **{key: "hm"}).reasoning_content == "hm"


def test_two_reasoning_keys_may_agree_but_not_differ() -> None:
    assert read(reasoning="hm", reasoning_content="hm").reasoning_content == "hm"
    assert refusal({"role": "assistant", "reasoning": "a", "thinking": "b"}).field == "thinking"


def test_tool_call_parts_are_tool_calls() -> None:
    value = '{"name": "f", "arguments": {"a": 1}}'
    message = read(content=[{"type": "reasoning", "value": "hm"}, {"type": "tool_call", "value": value}])
    assert message == Message("assistant", None, "hm", (ToolCall("f", {"a": 1}),))


def test_a_part_after_a_tool_call_is_refused_because_its_place_would_be_lost() -> None:
    parts = [{"type": "tool_call", "value": '{"name": "f"}'}, {"type": "text", "text": "a"}]
    assert refusal({"role": "assistant", "content": parts}, "messages[2]").field == "messages[2].content[1]"


ARGUMENTS = {"city": "Zürich", "n": 1}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (ARGUMENTS, ARGUMENTS),
        ('{"city":"Zürich",  "n": 1}', '{"city":"Zürich",  "n": 1}'),
        (json.dumps('{"city":"Zürich"}'), '{"city":"Zürich"}'),
        (json.dumps(json.dumps('{"a": 1}')), '{"a": 1}'),
        ("", ""),
        ("not JSON", "not JSON"),
        ('"just text"', '"just text"'),
        (None, {}),
    ],
)
def test_arguments_are_kept_verbatim_and_json_within_json_is_unwrapped(given: Any, kept: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": given}}
    assert read(tool_calls=[call]).tool_calls == (ToolCall("f", kept, "c"),)


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c", "name": "f", "arguments": {"a": 1}},
        {"id": "c", "name": "f", "args": {"a": 1}, "type": "tool_call"},
        {"id": "c", "function": "f", "arguments": {"a": 1}},
    ],
)
def test_calls_may_be_wrapped_or_flat(call: dict[str, Any]) -> None:
    assert read(tool_calls=[call]).tool_calls == (ToolCall("f", {"a": 1}, "c"),)


def test_tool_calls_may_be_json_text_or_null() -> None:
    assert read(tool_calls='[{"name": "f", "arguments": "{}"}]').tool_calls == (ToolCall("f", "{}"),)
    assert read(tool_calls=None).tool_calls == read(tool_calls=[]).tool_calls == ()


def test_several_calls_and_text_stand_in_one_message() -> None:
    calls = [{"id": "a", "name": "f", "arguments": "{}"}, {"id": "a", "name": "g", "arguments": "{}"}]
    message = read(content="Looking.", tool_calls=calls)
    assert (message.content, [call.name for call in message.tool_calls]) == ("Looking.", ["f", "g"])


def test_keys_of_a_call_that_have_no_field_are_kept_and_written_back() -> None:
    call = {"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}", "strict": True}}
    message = read(tool_calls=[call])
    assert message_to_row(message)["tool_calls"] == [call]
    assert message.to_openai()["tool_calls"][0].keys() == {"id", "type", "function"}


def test_legacy_function_calls_and_results_become_tool_calls_and_tool_messages() -> None:
    assert read(function_call={"name": "f", "arguments": "{}"}).tool_calls == (ToolCall("f", "{}"),)
    result = message_from_openai({"role": "function", "name": "f", "content": "1"})
    assert (result.role, result.name) == ("tool", "f")
    assert read(content="a", function_call=None).extra == {}


def test_legacy_and_modern_calls_together_are_refused() -> None:
    both = {"role": "assistant", "function_call": {"name": "f"}, "tool_calls": [{"name": "f"}]}
    assert refusal(both).field == "function_call"


@pytest.mark.parametrize("role", ["developer", "critic", "Orchestrator (-> WebSurfer)", "environment"])
def test_any_role_is_kept(role: str) -> None:
    message = message_from_openai({"role": role, "name": "Bob", "content": "hi"})
    assert (message.role, message.name) == (role, "Bob")


def test_whole_numbers_as_ids_become_text() -> None:
    assert message_from_openai({"role": "tool", "tool_call_id": 7, "content": ""}).tool_call_id == "7"


@pytest.mark.parametrize(
    ("flags", "weight"),
    [
        ({}, None),
        ({"weight": None}, None),
        ({"weight": 0}, 0.0),
        ({"loss": False}, 0.0),
        ({"loss_weight": 0.25}, 0.25),
        ({"training": True}, 1.0),
        ({"trainable": False}, 0.0),
        ({"loss": True, "weight": 0.5}, 0.5),
    ],
)
def test_flags_give_the_weight(flags: dict[str, Any], weight: float | None) -> None:
    message = read(content="a", **flags)
    assert message_weight(message) == weight
    assert message.extra == flags


@pytest.mark.parametrize(
    "flags", [{"weight": -1}, {"loss": "yes"}, {"weight": float("nan")}, {"loss": True, "weight": 0}]
)
def test_flags_without_a_clear_meaning_are_refused(flags: dict[str, Any]) -> None:
    refusal({"role": "assistant", "content": "a", **flags})


def test_a_written_row_carries_the_weight_of_its_turn() -> None:
    flagged = read(content="a", loss=False)
    assert message_to_row(flagged, 0.0) == {"role": "assistant", "content": "a", "loss": False}
    assert message_to_row(flagged, 1.0) == {"role": "assistant", "content": "a", "weight": 1.0}
    assert message_to_row(read(content="a"), 1.0) == {"role": "assistant", "content": "a"}


def test_flags_of_messages_become_weights_of_turns() -> None:
    said = [{"role": "user", "content": "u"}, *({"role": "assistant", "content": t, "loss": t == "b"} for t in "ab")]
    assert [turn.weight for _, _, turn in Episode.from_messages(said).turns()] == [0.0, 1.0]


def test_an_episode_of_dicts_has_a_hash_of_its_content_as_id() -> None:
    one, same, other = (Episode.from_messages([{"role": "user", "content": text}]) for text in ("a", "a", "b"))
    assert one.id == same.id != other.id
    assert Episode.from_messages([{"role": "user", "content": "a"}], tools=[{"name": "f"}]).id != one.id


def test_other_keys_are_kept_and_never_shown_to_a_model() -> None:
    message = read(content="a", refusal=None, x=[1, {"y": float("inf")}])
    assert message.extra == {"refusal": None, "x": [1, {"y": float("inf")}]}
    assert message.to_openai() == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (5, "m"),
        ({"content": "x"}, "m.role"),
        ({"role": 3}, "m.role"),
        ({"role": "user", "content": 5}, "m.content"),
        ({"role": "user", "content": {"a": 1}}, "m.content"),
        ({"role": "user", "content": [{"type": "video", "url": "x"}]}, "m.content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "m.content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "m.content[0]"),
        ({"role": "user", "name": 5}, "m.name"),
        ({"role": "assistant", "tool_calls": {}}, "m.tool_calls"),
        ({"role": "assistant", "tool_calls": "[oops"}, "m.tool_calls"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "m.tool_calls[0].name"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
            "m.tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "function_call": {"name": 1}}, "m.function_call.name"),
        ({"role": "assistant", "reasoning": {"a": 1}}, "m.reasoning"),
    ],
)
def test_a_refusal_names_the_very_field(value: Any, field: str) -> None:
    assert refusal(value, "m").field == field


def test_messages_may_be_json_text_and_errors_count_from_their_list() -> None:
    assert messages_from_openai('[{"role": "user", "content": "hi"}]') == [Message("user", "hi")]
    with pytest.raises(FormatError) as caught:
        messages_from_openai([{"role": "user"}, 5], "prompt")
    assert caught.value.field == "prompt[1]"
