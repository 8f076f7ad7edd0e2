"""Rows of two halves: the first is never trained."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import get_format
from understudy.types import Episode

USER, ASSISTANT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
KEYS = {"input_output": ("input", "output"), "prompt_completion": ("prompt", "completion")}


def decode(name: str, first: Any, second: Any, **rest: Any) -> Episode:
    (episode,) = get_format(name).decode(dict(zip(KEYS[name], (first, second), strict=True)) | rest, id="f:1")
    return episode


def shape(episode: Episode) -> list[tuple[str, Any, float | None]]:
    """Each message's role and content, and an action's weight."""
    out: list[tuple[str, Any, float | None]] = []
    for turn in episode.trajectories[0].turns:
        out += [(message.role, message.content, None) for message in turn.observation]
        if turn.action:
            out.append((turn.action.role, turn.action.content, turn.weight))
    return out


@pytest.mark.parametrize("name", KEYS)
def test_text_is_one_user_message_and_one_answer(name: str) -> None:
    assert shape(decode(name, "u", "a")) == [("user", "u", None), ("assistant", "a", 1.0)]


@pytest.mark.parametrize("name", KEYS)
def test_assistant_messages_of_the_first_half_are_context(name: str) -> None:
    episode = decode(name, [USER, ASSISTANT, USER], [ASSISTANT, USER, ASSISTANT])
    weights = [weight for _, _, weight in shape(episode) if weight is not None]
    assert weights == [0.0, 1.0, 1.0]
    assert get_format(name).encode(episode).lost == ()


@pytest.mark.parametrize("name", KEYS)
def test_a_missing_role_in_the_second_half_is_the_assistant(name: str) -> None:
    assert shape(decode(name, "u", [{"content": "a"}]))[1] == ("assistant", "a", 1.0)
    with pytest.raises(FormatError, match="needs a role"):
        decode(name, [{"content": "u"}], "a")


@pytest.mark.parametrize("name", KEYS)
def test_flags_and_tools_are_honoured(name: str) -> None:
    episode = decode(name, "u", [ASSISTANT | {"loss": False}, ASSISTANT], tools='[{"name": "f"}]')
    assert [weight for _, _, weight in shape(episode) if weight is not None] == [0.0, 1.0]
    assert episode.trajectories[0].tools()[0].name == "f"
    assert get_format(name).encode(episode).lost == ()


def test_an_input_may_be_messages_as_json_text() -> None:
    text = '[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]'
    assert [role for role, _, _ in shape(decode("input_output", text, "a"))] == ["system", "user", "assistant"]


@pytest.mark.parametrize("text", ["[1, 2] is a list?", "[1, 2]", "[]", '["a"]', "[INST] hi", '[{"a": 1}]'])
def test_an_input_that_only_begins_like_a_list_is_plain_text(text: str) -> None:
    episode = decode("input_output", text, "a")
    assert shape(episode)[0] == (("user", text, None) if text != "[]" else ("assistant", "a", 1.0))


def test_a_plain_question_is_written_as_plain_text_and_another_as_messages() -> None:
    write = get_format("input_output")
    assert write.encode(decode("input_output", "u", "a")).rows[0]["input"] == "u"
    listed = write.encode(decode("input_output", [{"role": "system", "content": "s"}, USER], "a")).rows[0]["input"]
    assert listed == '[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]'


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("second", [None, 5, {"role": "assistant"}])
def test_a_half_of_another_type_is_refused_by_name(name: str, second: Any) -> None:
    with pytest.raises(FormatError) as caught:
        decode(name, "u", second)
    assert caught.value.field == KEYS[name][1]


@pytest.mark.parametrize("name", KEYS)
def test_an_episode_without_any_action_is_all_context(name: str) -> None:
    episode = decode(name, [USER], [])
    encoded = get_format(name).encode(episode)
    assert (encoded.rows[0][KEYS[name][1]], encoded.lost) == ([], ())
