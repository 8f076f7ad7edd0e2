"""Environments of MRLM's shape: what the agent sees, whatever of it an observation repeats."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from understudy import registry
from understudy.environments import Observation, says
from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import Message

from .playing import played, said

SHAPED = "tests.environments.adapters.mrlm_shaped"


def arguments(cls: str = "Sums", **others: Any) -> dict[str, Any]:
    return {"environment": f"{SHAPED}:{cls}", "success_from": "correct"} | others


def adds(observation: Observation) -> Message:
    """Be wrong at first, and right the second time."""
    numbers = re.findall(r"\d+", observation.messages[-1].text())
    return says("0") if len(numbers) == 2 else says("1")


@pytest.mark.parametrize("shows", ["answer", "pair", "all", "system"])
def test_only_what_is_new_joins_the_conversation(shows: str) -> None:
    (episode,) = played("mrlm", arguments(arguments={"shows": shows, "largest": 9}), adds, num=1)
    assert episode.error is None
    question = said(episode)[1][1]
    expected = [("system", "You add."), ("user", question), ("assistant", "0"), ("user", "wrong"), ("assistant", "1")]
    assert said(episode) == [*expected, ("user", "wrong")]
    assert [turn.reward for turn in episode.trajectories[0].turns] == [-0.5, -0.5, None]
    assert (episode.reward, episode.success, episode.stop_reason) == (-1.0, False, "done")
    annotations = episode.trajectories[0].turns[0].annotations
    assert annotations["reward_components"] == {"right": 0.0}
    assert len(annotations["info"]["state"]["numbers"]) == 2
    assert episode.trajectories[0].messages()[3].name == "environment"


def test_a_prompt_that_begins_anew_replaces_the_old_one() -> None:
    (episode,) = played("mrlm", arguments(arguments={"shows": "anew"}), lambda _: says("0"), num=1)
    first, second, last = episode.trajectories[0].turns
    assert (first.parent, second.parent, last.parent) == (None, None, None)
    assert [message.text() for message in second.observation] == ["You add.", "You said 0: wrong."]
    (episode,) = played("mrlm", arguments("Rewriting"), lambda _: says(" 0 "), num=1)
    second = episode.trajectories[0].turns[1]
    assert (second.parent, [message.text() for message in second.observation][1:]) == (None, ["0", "wrong"])


def test_a_right_answer_is_a_success_and_without_the_key_success_is_unknown() -> None:
    def right(observation: Observation) -> Message:
        return says(str(sum(map(int, re.findall(r"\d+", observation.messages[-1].text())))))

    assert {(e.success, e.reward) for e in played("mrlm", arguments(), right)} == {(True, 1.0)}
    assert {e.success for e in played("mrlm", arguments(success_from="is_correct"), right)} == {True}
    assert {e.success for e in played("mrlm", arguments(success_from="solved"), right)} == {None}


def test_a_task_is_a_seed_that_decides_the_episode_and_leaves_the_generator_as_it_was() -> None:
    random.seed(7)
    before = random.getstate()
    first, again = (played("mrlm", arguments()) for _ in range(2))
    assert random.getstate() == before
    assert [said(e) for e in first] == [said(e) for e in again]
    assert len({said(e)[1] for e in first}) == len(first)
    environment = registry.create("environments", "mrlm", arguments(num_tasks=20))
    seeds = {split: {task["seed"] for task in environment.tasks(split)} for split in ("train", "test")}
    assert len(seeds["train"]) == 20
    assert not seeds["train"] & seeds["test"]


def test_an_endless_episode_is_cut_and_what_is_no_pair_is_a_fault() -> None:
    (episode,) = played("mrlm", arguments("Endless", max_steps=4), num=1)
    assert (episode.stop_reason, len(episode.trajectories[0].turns), episode.success) == ("max_steps", 5, None)
    (episode,) = played("mrlm", arguments("OldGym"), num=1)
    assert "step returned Observation, and not an observation and a reward" in (episode.error or "")


def test_what_an_environment_raises_is_a_fault_and_after_the_end_there_is_no_step() -> None:
    (episode,) = played("mrlm", arguments("Exhausted"), num=1)
    assert (episode.error, episode.success) == ("environment.step: EnvironmentFault: StopIteration:", None)
    environment = registry.create("environments", "mrlm", arguments("Endless", max_steps=1))
    asyncio.run(environment.reset())
    asyncio.run(environment.step({"agent": says("0")}))
    with pytest.raises(EnvironmentFault, match="no episode is under way"):
        asyncio.run(environment.step({"agent": says("0")}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"environment": "math"}, "write package.module:Class or path/to/file.py:Class"),
        ({"environment": f"{SHAPED}:Sum"}, "cannot import"),
        (arguments(max_steps=0), "max_steps is 0"),
        (arguments(sucess_from="x"), "Did you mean 'success_from'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "mrlm", given)
