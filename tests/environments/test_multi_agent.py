"""The frame for several agents: who acts when, who sees what, and whose turn a call does not end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from understudy.environments import Observation, Reward, Step, Toolbox, calls, says, system, user
from understudy.environments.multi_agent import NOTHING_NEW, MultiAgentEnvironment
from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import Message


class Whispers(MultiAgentEnvironment[list[str]]):
    """What one says the next one hears; saying "end" ends it."""

    agents = ("a", "b", "c")
    default_turn_order = ("a", ("b", "c"))

    def draw_task(self, rng: random.Random) -> Any:
        return rng.random()

    def begin(self, task: Any) -> tuple[list[str], Mapping[str, Sequence[Message]]]:
        return [], {agent: (system(f"You are {agent}."), user("Begin.")) for agent in self.agents}

    def make_toolbox(self, agent: str) -> Toolbox:
        return Toolbox(self.peek) if agent == "b" else Toolbox()

    def peek(self) -> str:
        """Count what has been said."""
        return str(len(self.state))

    def on_text(self, agent: str, text: str) -> None:
        self.state.append(text)
        self.tell({"a": "b", "b": "c", "c": "a"}[agent], f"{agent}: {text}")
        if text == "end":
            self.finish("ended")

    def is_success(self, agent: str) -> bool | None:
        return None

    def rewards(self, is_over: bool) -> dict[str, Reward]:
        return {}

    def decide(self, agent: str, observation: Observation) -> Message:
        return says("end")


def run(*actions: dict[str, Message], **arguments: Any) -> list[Step]:
    async def play() -> list[Step]:
        environment = Whispers(**arguments)
        return [await environment.reset(1.0), *[await environment.step(action) for action in actions]]

    return asyncio.run(play())


def seen(step: Step) -> dict[str, list[str]]:
    return {agent: [m.text() for m in observation.messages] for agent, observation in step.observations.items()}


def test_turns_follow_the_order_and_a_group_acts_at_once_without_hearing_itself() -> None:
    steps = run({"a": says("one")}, {"b": says("two"), "c": says("three")}, {"a": says("end")})
    assert [sorted(step.observations) for step in steps] == [["a"], ["b", "c"], ["a"], ["b", "c"]]
    assert seen(steps[1]) == {"b": ["You are b.", "Begin.\na: one"], "c": ["You are c.", "Begin."]}
    assert seen(steps[2]) == {"a": ["c: three"]}
    assert seen(steps[3]) == {"b": ["a: end"], "c": ["b: two"]}
    assert (steps[3].terminated, steps[3].stop_reason) == (True, "ended")


def test_a_turn_lasts_until_something_is_said_and_results_come_before_what_others_say() -> None:
    steps = run({"a": says("x")}, {"b": calls("peek"), "c": says("y")}, {"b": calls("peek")}, {"b": says("z")})
    assert seen(steps[2]) == {"b": ["1"]}
    assert seen(steps[3]) == {"b": ["2"]}
    assert seen(steps[4]) == {"a": ["c: y"]}
    (tool,) = steps[1].observations["b"].tools or ()
    assert (tool.name, steps[1].observations["c"].tools, steps[2].observations["b"].tools) == ("peek", (), None)


def test_whoever_calls_tools_hears_its_group_only_when_it_has_spoken_too() -> None:
    order = [["a", "b"], "c"]
    steps = run({"b": calls("peek"), "a": says("hello")}, {"b": says("z")}, {"c": says("w")}, turn_order=order)
    assert seen(steps[1]) == {"b": ["0"]}
    assert seen(steps[2]) == {"c": ["You are c.", "Begin.\nb: z"]}
    assert seen(steps[3]) == {"a": ["c: w"], "b": ["a: hello"]}
    over = run({"b": calls("peek"), "a": says("end")}, turn_order=order)[-1]
    assert seen(over) == {"b": ["0", "a: end"], "c": ["You are c.", "Begin."]}


def test_who_has_heard_nothing_is_told_that_it_is_its_turn() -> None:
    steps = run({"a": says("x")}, {"a": says("y")}, turn_order=["a", "a", "b", "c"])
    assert seen(steps[1]) == {"a": [NOTHING_NEW]}


def test_the_limit_counts_steps_and_truncates() -> None:
    steps = run({"a": says("x")}, {"b": says("x"), "c": says("x")}, max_steps=2)
    assert (steps[-1].truncated, steps[-1].terminated, steps[-1].stop_reason) == (True, False, "max_steps")


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (["a", "b"], "agent 'c' never acts"),
        (["a", "b", "c", "d"], "no agent 'd'"),
        (["a", ["b", "b"], "c"], "once"),
        (["a", [], "b", "c"], "one at least"),
    ],
)
def test_an_order_that_is_none_is_refused(order: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Whispers(turn_order=order)


@pytest.mark.parametrize("max_steps", [0, -3, "ten", True, 2.5])
def test_a_limit_that_is_none_is_refused(max_steps: Any) -> None:
    with pytest.raises(ConfigError, match="give a whole number from 1 up"):
        Whispers(max_steps=max_steps)


def test_those_act_who_are_to_act() -> None:
    with pytest.raises(EnvironmentFault, match="a are to act, not b"):
        run({"b": says("x")})
