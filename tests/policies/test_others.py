"""The expert, random, replay and human policies."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from understudy.collect import Play, play_episode
from understudy.environments import Observation, says
from understudy.environments.grid import Grid
from understudy.environments.math import Math
from understudy.environments.tools import Tools
from understudy.errors import ConfigError, PolicyError
from understudy.formats import write_episodes
from understudy.policies import Context, EpisodeStart, Policy, with_call_ids
from understudy.policies.human import HumanPolicy, PlayerLeft, read_action
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.replay import ReplayPolicy
from understudy.policies.scripted import ExpertPolicy, ScriptedPolicy
from understudy.types import Episode, Message, Tool, ToolCall


def context(*messages: Message, observation: Observation | None = None, tools: Any = (), seed: int = 0) -> Context:
    return Context(messages, tools, observation or Observation(messages), 0, seed)


def play(make: Callable[[], Any], policy: Policy, index: int = 0, **fields: Any) -> Episode:
    environment = make()
    play = Play(id="e", task=environment.tasks("train")[index], **fields)
    return asyncio.run(play_episode(environment, {"agent": policy}, play, max_turns=30))


def test_calls_get_ids_of_nine_letters_counted_over_the_conversation() -> None:
    earlier = (Message("assistant", tool_calls=(ToolCall("f", {}, "x"),)),)
    message = Message("assistant", tool_calls=(ToolCall("f", {}), ToolCall("g", {}, "mine"), ToolCall("h", {})))
    assert [call.id for call in with_call_ids(message, earlier).tool_calls] == ["call00001", "mine", "call00003"]


def test_an_expert_acts_within_an_episode_only_and_where_there_is_one() -> None:
    with pytest.raises(PolicyError, match="for_episode"):
        asyncio.run(ExpertPolicy().act(context()))
    with pytest.raises(ConfigError, match="has no expert"):
        ExpertPolicy().for_episode(EpisodeStart(object(), "agent"))  # type: ignore[arg-type]


def test_a_script_that_fails_is_an_error_of_the_policy() -> None:
    with pytest.raises(PolicyError, match="ZeroDivisionError"):
        asyncio.run(ScriptedPolicy(lambda observation: 1 / 0).act(context()))  # type: ignore[arg-type,return-value]


def test_random_actions_are_legal_where_legal_ones_are_listed() -> None:
    observation = Observation(legal_actions=("up", "down"))
    found = {
        asyncio.run(RandomPolicy().act(context(observation=observation, seed=s))).message.text() for s in range(30)
    }
    assert found == {"up", "down"}


def test_random_choices_depend_on_the_seed_only() -> None:
    shown = (Message("user", "Compute 1 + 2."),)
    first, again, other = (
        [asyncio.run(RandomPolicy().act(context(*shown, tools=Math().tools, seed=s))).message for s in seeds]
        for seeds in (range(9), range(9), range(9, 18))
    )
    assert first == again != other


@pytest.mark.parametrize(
    "properties",
    [{"at": {"type": ["string", "null"]}}, {"at": True}, {"at": {"type": "array", "items": True}}, None],
    ids=["several types", "anything", "a list of anything", "null"],
)
def test_tools_with_schemas_that_say_little_are_called_too(properties: Any) -> None:
    tool = Tool.from_openai({"name": "look", "parameters": {"type": "object", "properties": properties}})
    for seed in range(10):
        (call,) = asyncio.run(RandomPolicy(only_calls=True).act(context(tools=(tool,), seed=seed))).message.tool_calls
        assert call.parsed_arguments().keys() <= {"at"}
    line = "/look" if properties is None else "/look at=1"
    assert read_action(line, [tool]).tool_calls[0].name == "look"


def test_random_words_are_left_out_where_only_calls_are_wanted() -> None:
    shown = (Message("user", "Compute 1 + 2."),)
    policy = RandomPolicy(only_calls=True)
    acted = [asyncio.run(policy.act(context(*shown, tools=Math().tools, seed=s))).message for s in range(30)]
    assert all(message.tool_calls for message in acted)
    assert asyncio.run(policy.act(context(*shown, seed=1))).message.text()  # nothing to call
    assert policy.identity() != RandomPolicy().identity()


def test_random_calls_can_be_held_to_some_tools_and_to_values_of_a_pattern() -> None:
    shown = (Message("system", "Ada lamp elm pending\nBo bed heron delivered"), Message("user", "I am Ada."))
    policy = RandomPolicy(
        only_calls=True, tools=["find_customer"], values=r"(?m)^[A-Z]\w+(?= .* (?:pending|delivered)$)"
    )
    acted = [asyncio.run(policy.act(context(*shown, tools=Tools().tools, seed=s))).message for s in range(30)]
    calls = [message.tool_calls[0] for message in acted]
    assert {call.name for call in calls} == {"find_customer"}
    assert {call.parsed_arguments()["name"] for call in calls} == {"Ada", "Bo"}
    without = asyncio.run(policy.act(context(Message("user", "hello"), tools=Tools().tools))).message
    assert set(without.tool_calls[0].parsed_arguments()["name"].split()) == {"hello"}
    with pytest.raises(PolicyError, match=r"may call find_customer only; there are: calculator"):
        asyncio.run(policy.act(context(*shown, tools=Math().tools)))


@pytest.mark.parametrize(
    ("arguments", "complaint"), [({"tools": []}, "tools is empty"), ({"values": "("}, "is no regular expression")]
)
def test_what_a_random_policy_cannot_be_held_to_is_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RandomPolicy(**arguments)


@pytest.mark.parametrize("make", [Math, Tools, lambda: Grid(view="replace")])
def test_a_replay_makes_the_same_episode(make: Callable[[], Any], tmp_path: Path) -> None:
    recorded = play(make, ExpertPolicy())
    write_episodes(tmp_path / "recorded.jsonl", [recorded])
    for source in (str(tmp_path / "recorded.jsonl"), [recorded]):
        replayed = play(make, ReplayPolicy(source))
        assert [turn.action for turn in replayed.trajectories[0].turns] == [
            turn.action for turn in recorded.trajectories[0].turns
        ]
        assert replayed.success


def test_samples_replay_their_own_recordings() -> None:
    recorded = [play(Math, ScriptedPolicy(lambda _, n=n: says(f"It is {n}."))) for n in (1, 2)]
    policy = ReplayPolicy(recorded)
    texts = [play(Math, policy, sample=s).trajectories[0].turns[0].action.text() for s in (0, 1, 2)]  # type: ignore[union-attr]
    assert texts == ["It is 1.", "It is 2.", "It is 1."]


def test_a_replay_without_a_recording_or_beyond_its_end_is_an_error() -> None:
    recorded = play(Math, ScriptedPolicy(lambda _: says("It is 1.")))
    assert "no episode of" in (play(Math, ReplayPolicy([recorded]), index=1).error or "")
    cut = play(Tools, ExpertPolicy())
    import dataclasses

    trajectory = dataclasses.replace(cut.trajectories[0], turns=cut.trajectories[0].turns[:2])
    shorter = dataclasses.replace(cut, trajectories=(trajectory,))
    episode = play(Tools, ReplayPolicy([shorter]))
    assert "the recording ends after 2 actions" in (episode.error or "")
    assert episode.success is None


class Typed(Console):
    """A console whose user types given lines."""

    def __init__(self, *lines: str) -> None:
        self.shown = io.StringIO()
        super().__init__(file=self.shown, width=100)
        self._lines = list(lines)

    def input(self, *args: Any, **kwargs: Any) -> str:
        if not self._lines:
            raise EOFError
        return self._lines.pop(0)


def test_a_person_can_play_an_episode_through() -> None:
    task = Math(kinds=["expression"]).tasks("train")[0]
    console = Typed("", "/tools", "/nope 1", f"/calculator {task['expression']}", f"It is {task['answer']}")
    episode = play(lambda: Math(kinds=["expression"]), HumanPolicy(console))
    assert episode.success
    shown = console.shown.getvalue()
    assert task["question"] in shown
    assert "/calculator expression: Compute an arithmetic expression." in shown
    assert "there is no tool 'nope'" in shown


def test_leaving_is_no_failure() -> None:
    episode = play(Math, HumanPolicy(Typed()))
    assert (episode.success, episode.error) == (None, "policy of agent: PlayerLeft: the player left")
    with pytest.raises(PlayerLeft):
        asyncio.run(HumanPolicy(Typed("/quit")).act(context(Message("user", "hi"))))


TOOLS = Tools(level=5).tools


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("/find_customer Ada", ("find_customer", {"name": "Ada"})),
        ("/find_customer name=Ada", ("find_customer", {"name": "Ada"})),
        ('/refuse {"order": "1", "reason": "not_pending"}', ("refuse", {"order": "1", "reason": "not_pending"})),
        (
            '/change_address order=1 address="2 Oak Street"',
            ("change_address", {"order": "1", "address": "2 Oak Street"}),
        ),
        ("/check_stock", ("check_stock", {})),
    ],
)
def test_calls_can_be_typed_in_three_ways(line: str, call: tuple[str, dict]) -> None:
    (typed,) = read_action(line, TOOLS).tool_calls
    assert (typed.name, typed.arguments) == call


@pytest.mark.parametrize("line", ["/find", "/refuse 1 2", "/refuse {", "/refuse reson=x"])
def test_what_cannot_be_read_is_asked_again(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the texts differ)
        read_action(line, TOOLS)
