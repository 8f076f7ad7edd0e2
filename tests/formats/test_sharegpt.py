"""ShareGPT and Alpaca rows: tags, calls, images, system prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import get_format
from understudy.types import Episode, ImagePart, Message, TextPart, ToolCall

SHAREGPT = get_format("sharegpt")
CALL = {"name": "f", "arguments": {"city": "Zürich"}}


def entry(tag: str, value: Any, **rest: Any) -> dict[str, Any]:
    return {"from": tag, "value": value, **rest}


def decode(*entries: Any, **rest: Any) -> Episode:
    (episode,) = SHAREGPT.decode({"conversations": list(entries), **rest}, id="f:1")
    return episode


def said(*entries: Any, **rest: Any) -> list[Message]:
    return decode(*entries, **rest).trajectories[0].messages()


def refused_at(*entries: Any, **rest: Any) -> str | None:
    with pytest.raises(FormatError) as caught:
        decode(*entries, **rest)
    return caught.value.field


def test_each_tag_has_its_role() -> None:
    entries = [entry(tag, tag) for tag in ("system", "human", "user", "gpt", "assistant", "observation", "critic")]
    roles = [message.role for message in said(*entries)]
    assert roles == ["system", "user", "user", "assistant", "assistant", "tool", "critic"]


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (json.dumps(CALL), {"city": "Zürich"}),
        (json.dumps([CALL]), {"city": "Zürich"}),
        (CALL, {"city": "Zürich"}),
        (json.dumps({"name": "f", "arguments": '{"city":  "Zürich"}'}), '{"city":  "Zürich"}'),
        (json.dumps({"name": "f", "arguments": json.dumps(json.dumps({"a": 1}))}), '{"a": 1}'),
        (json.dumps({"name": "f"}), {}),
    ],
)
def test_a_function_call_is_json_with_arguments_of_any_spelling(value: Any, arguments: Any) -> None:
    assert said(entry("human", "q"), entry("function_call", value))[1].tool_calls == (ToolCall("f", arguments),)


def test_several_calls_of_one_entry_are_one_message() -> None:
    (message,) = said(entry("function_call", json.dumps([CALL, CALL | {"name": "g"}])))
    assert [call.name for call in message.tool_calls] == ["f", "g"]


def test_text_right_before_calls_is_of_the_same_message_and_is_written_so() -> None:
    entries = [
        entry("human", "q"),
        entry("gpt", "Let me see."),
        entry("function_call", json.dumps(CALL, ensure_ascii=False)),
    ]
    episode = decode(*entries)
    assert episode.trajectories[0].messages()[1] == Message(
        "assistant", "Let me see.", tool_calls=(ToolCall("f", {"city": "Zürich"}),)
    )
    encoded = SHAREGPT.encode(episode)
    assert (encoded.rows[0]["conversations"], encoded.lost) == (entries, ())


def test_a_thought_before_a_call_is_its_text() -> None:
    thought = "<think>\nhm {\n</think>\n\n"
    (message,) = said(entry("function_call", thought + json.dumps(CALL)))
    assert (message.content, message.tool_calls[0].name) == (thought, "f")


@pytest.mark.parametrize("value", ["f(x)", "", None, "[1]", '{"arguments": {}}', "<think>x</think>"])
def test_a_function_call_that_is_no_call_is_refused(value: Any) -> None:
    assert str(refused_at(entry("human", "q"), entry("function_call", value))).startswith("conversations[1]")


def test_the_system_column_stands_first_and_may_not_contradict() -> None:
    assert said(entry("human", "q"), system="Be brief.")[0] == Message("system", "Be brief.")
    assert [m.role for m in said(entry("human", "q"), system="")] == ["user"]
    assert len(said(entry("system", "s"), entry("human", "q"), system="s")) == 2
    assert refused_at(entry("system", "s"), entry("human", "q"), system="other") == "system"


@pytest.mark.parametrize("tools", ["[]", "", None, []])
def test_tools_may_be_an_empty_list_as_text(tools: Any) -> None:
    assert decode(entry("human", "q"), tools=tools).trajectories[0].tools() == ()


def test_tools_are_json_text_both_ways() -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
    episode = decode(entry("human", "q"), entry("gpt", "a"), tools=tools)
    assert episode.trajectories[0].tools()[0].name == "f"
    assert SHAREGPT.encode(episode).rows[0]["tools"] == tools


def test_loss_flags_of_entries_are_honoured_and_written_back() -> None:
    entries = [entry("human", "q", loss=None), entry("gpt", "a", loss=False), entry("gpt", "b", loss=True)]
    episode = decode(*entries)
    assert [turn.weight for _, _, turn in episode.turns()] == [0.0, 1.0]
    assert SHAREGPT.encode(episode).rows[0]["conversations"] == entries


def test_images_stand_where_their_placeholders_do() -> None:
    entries = [entry("human", "<image>What is <image>?"), entry("gpt", "a")]
    episode = decode(*entries, images=["a.png", "http://b"])
    assert episode.trajectories[0].messages()[0].content == (
        ImagePart("a.png"),
        TextPart("What is "),
        ImagePart("http://b"),
        TextPart("?"),
    )
    encoded = SHAREGPT.encode(episode)
    assert (encoded.rows[0]["conversations"], encoded.rows[0]["images"]) == (entries, ["a.png", "http://b"])
    assert encoded.lost == ()


def test_a_placeholder_without_images_is_ordinary_text() -> None:
    assert said(entry("human", "What does <image> mean?"))[0].content == "What does <image> mean?"


def test_images_that_do_not_fit_their_placeholders_are_refused() -> None:
    assert refused_at(entry("human", "<image>"), images=["a", "b"]) == "images"
    assert refused_at(entry("human", "q"), images=[5]) == "images"
    assert refused_at(entry("human", "<video>"), videos=["a.mp4"]) == "videos"


def test_what_the_format_has_no_place_for_is_named() -> None:
    call = ToolCall("f", '{"city": "Bern"}', id="c1")
    answer = Message("assistant", reasoning_content="hm", tool_calls=(call,))
    result = Message("tool", "sun", tool_call_id="c1", name="f")
    encoded = SHAREGPT.encode(Episode.from_messages([Message("user", "q"), answer, result], id="e"))
    assert encoded.lost == (
        "trajectories.turns.action.reasoning_content",
        "trajectories.turns.action.tool_calls.arguments",
        "trajectories.turns.action.tool_calls.id",
        "trajectories.turns.observation.name",
        "trajectories.turns.observation.tool_call_id",
    )
    assert encoded.rows[0]["conversations"][1]["value"] == '{"name": "f", "arguments": {"city": "Bern"}}'


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ([5], "conversations[0]"),
        ([{"value": "x"}], "conversations[0].from"),
        ([entry("human", 5)], "conversations[0].value"),
        ([], "conversations"),
    ],
)
def test_an_entry_without_a_meaning_is_refused(entries: list[Any], field: str) -> None:
    assert refused_at(*entries) == field


ALPACA = get_format("alpaca")


def rounds(**row: Any) -> list[tuple[str, Any]]:
    (episode,) = ALPACA.decode(row, id="f:1")
    return [(message.role, message.content) for message in episode.trajectories[0].messages()]


def test_alpaca_joins_instruction_and_input_and_trains_every_answer() -> None:
    assert rounds(instruction="Add.", input="1+1", output="2", system="Be brief.", history=[["0+0", "0"]]) == [
        ("system", "Be brief."),
        ("user", "0+0"),
        ("assistant", "0"),
        ("user", "Add.\n1+1"),
        ("assistant", "2"),
    ]
    assert rounds(instruction="Add.", input="", output="2") == [("user", "Add."), ("assistant", "2")]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"instruction": "a"}, "output"),
        ({"instruction": "", "output": "a"}, "instruction"),
        ({"instruction": "a", "output": 5}, "output"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "history[0]"),
    ],
)
def test_alpaca_rows_without_their_texts_are_refused(row: dict[str, Any], field: str) -> None:
    with pytest.raises(FormatError) as caught:
        ALPACA.decode(row, id="x")
    assert caught.value.field == field
