"""OpenAI rows and what stands beside the conversation; the traps of whole episodes."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.errors import FormatError
from understudy.formats import get_format
from understudy.types import Episode, Message, Tool

MESSAGES = get_format("messages")
USER, ASSISTANT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}


def decode(messages: Any = (USER, ASSISTANT), **rest: Any) -> Episode:
    (episode,) = MESSAGES.decode({"messages": list(messages), **rest}, id="f:1")
    return episode


def said(episode: Episode) -> list[Message]:
    return episode.trajectories[0].messages()


def test_pettingllms_metadata_names_agent_policy_reward_success_and_environment() -> None:
    metadata = {
        "agent_name": "solver",
        "policy_name": "shared",
        "reward": 0.5,
        "env_success": False,
        "timestamp": "2024-12-03T12:34:56",
        "env_name": "math_env",
        "env_idx": 3,
        "rollout_idx": 1,
        "turn_idx": 2,
    }
    episode = decode(metadata=metadata)
    (trajectory,) = episode.trajectories
    assert (trajectory.agent, trajectory.policy) == ("solver", "shared")
    assert (episode.reward, episode.success, episode.environment) == (0.5, False, "math_env")
    assert episode.metadata == metadata
    assert MESSAGES.encode(episode).rows == [{"messages": [USER, ASSISTANT], "id": "f:1", "metadata": metadata}]


def test_a_key_of_the_row_wins_over_its_name_in_the_metadata() -> None:
    assert decode(reward=None, metadata={"reward": 1.0}).reward is None
    assert decode(agent="b", metadata={"agent_name": "a"}).trajectories[0].agent == "b"


@pytest.mark.parametrize(
    ("given", "read"), [(1, 1.0), (-2.5, -2.5), (True, 1.0), (False, 0.0), (0.3, 0.3), (None, None), (..., None)]
)
def test_rewards_may_be_negative_boolean_fractional_or_missing(given: Any, read: float | None) -> None:
    assert decode(**({} if given is ... else {"reward": given})).reward == read


@pytest.mark.parametrize("given", [float("nan"), float("inf"), "high", [1], 10**400])
@pytest.mark.parametrize("place", ["reward", "metadata.reward", "agent_reward"])
def test_a_reward_that_is_no_finite_number_is_refused(given: Any, place: str) -> None:
    rest = {"metadata": {"reward": given}} if place == "metadata.reward" else {place: given}
    with pytest.raises(FormatError) as caught:
        decode(**rest)
    assert caught.value.field == place


def test_success_is_never_guessed_from_the_reward() -> None:
    assert decode(reward=1.0).success is None


def test_every_other_key_is_kept_in_the_metadata() -> None:
    episode = decode(metadata={"a": 1}, source="web", a=2, environment={"not": "text"}, error=None)
    assert episode.metadata == {"a": 1, "row.a": 2, "source": "web", "environment": {"not": "text"}}
    assert decode(metadata=[1]).metadata == {"metadata": [1]}


def test_tools_may_be_absent_while_calls_are_present() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    episode = decode([USER, {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert episode.trajectories[0].tools() == ()
    assert said(episode)[1].tool_calls[0].name == "f"


def test_tools_stand_on_the_root_turn_whatever_their_spelling() -> None:
    for tools in ('[{"name": "f"}]', [{"name": "f"}], {"type": "function", "function": {"name": "f"}}):
        assert decode(tools=tools).trajectories[0].tools() == (Tool({"type": "function", "function": {"name": "f"}}),)
    assert decode(functions=[{"name": "f"}]).trajectories[0].tools()[0].name == "f"


@pytest.mark.parametrize(
    "roles",
    [
        ["assistant"],
        ["tool"],
        ["assistant", "user"],
        ["user", "assistant", "assistant"],
        ["system", "tool", "tool", "assistant", "system"],
        ["user", "user"],
        ["developer", "critic"],
    ],
)
def test_an_episode_may_begin_and_end_on_any_role(roles: list[str]) -> None:
    messages = [{"role": role, "content": f"{i}"} for i, role in enumerate(roles)]
    episode = decode(messages)
    assert [message.to_openai() for message in said(episode)] == messages
    assert episode.num_actions() == roles.count("assistant")
    assert MESSAGES.encode(episode).rows[0]["messages"] == messages


def test_call_ids_that_repeat_and_results_in_any_order_survive() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": "{}"}}

    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call("f"), call("g")]},
        {"role": "tool", "content": "of g", "tool_call_id": "call_0", "name": "g"},
        {"role": "tool", "content": "of f", "tool_call_id": "call_0", "name": "f"},
        {"role": "assistant", "content": None, "tool_calls": [call("f")]},
        {"role": "tool", "content": "again", "tool_call_id": "call_0"},
    ]
    encoded = MESSAGES.encode(decode(messages))
    assert encoded.lost == ()
    assert encoded.rows[0]["messages"] == messages


def test_messages_without_a_meaning_are_refused_with_their_place() -> None:
    for messages, field in [(None, "messages"), ([], "messages"), ("{", "messages"), ([USER, {}], "messages[1].role")]:
        with pytest.raises(FormatError) as caught:
            MESSAGES.decode({"messages": messages}, id="x")
        assert caught.value.field == field


def test_a_row_that_is_no_object_is_refused() -> None:
    with pytest.raises(FormatError, match="a row is an object, not a list"):
        MESSAGES.decode([USER], id="x")


def test_two_agents_are_two_rows() -> None:
    one, two = (decode(agent=name).trajectories[0] for name in ("pro", "con"))
    encoded = MESSAGES.encode(Episode("debate", (one, two), reward=1.0))
    assert [row["agent"] for row in encoded.rows] == ["pro", "con"]
    assert [row["id"] for row in encoded.rows] == ["debate/0", "debate/1"]
    assert encoded.lost == ("trajectories",)
