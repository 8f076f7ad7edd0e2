"""Gyms of UserRL's shape, through interact_with_env."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from understudy import registry
from understudy.environments import Observation, calls
from understudy.errors import ConfigError
from understudy.types import Message

from .playing import played, said
from .user_rl_shaped import RIDDLES, RiddleEnv

SHAPED = "tests.environments.adapters.user_rl_shaped"
GYM: dict[str, Any] = {"gym": f"{SHAPED}:RiddleEnv", "config": {}, "success_reward": 1}


def guesses(observation: Observation) -> Message:
    found = re.findall(r"riddle-(\d+)", observation.messages[-1].text())
    return calls("interact_with_env", choice="answer", content=found[0] if found else "0")


@pytest.mark.parametrize("tasks", [None, list(RIDDLES)])
def test_a_gym_is_opened_on_its_task_and_acted_in_by_the_tool(tasks: list[str] | None) -> None:
    state = random.getstate()
    episodes = played("user_rl", GYM | {"tasks": tasks}, guesses)
    assert {(e.error, e.success, e.reward, e.stop_reason) for e in episodes} == {(None, True, 1.0, "terminated")}
    assert random.getstate() == state
    assert RiddleEnv.num_open == 0, "each episode has a gym of its own, which is closed"
    assert len({said(e)[1] for e in episodes}) > 3
    if tasks is not None:
        assert all(f"Guess {e.task}." in said(e)[1][1] for e in episodes)
    riddle = re.findall(r"riddle-\d+", said(episodes[0])[1][1])[0]
    assert said(episodes[0])[1:] == [("user", f"Guess {riddle}.\n\nGuess."), ("assistant", ""), ("tool", "yes")]
    assert [tool.name for tool in episodes[0].trajectories[0].tools()] == ["interact_with_env"]


def test_settings_reach_the_gym_and_rewards_below_the_mark_are_no_success() -> None:
    (episode,) = played("user_rl", GYM | {"config": {"right_reward": 0.5}}, guesses, num=1)
    assert (episode.reward, episode.success) == (0.5, False)

    def wrong(_: Observation) -> Message:
        return calls("interact_with_env", choice="action", content="hm")

    (episode,) = played("user_rl", GYM | {"config": {"max_steps": 2}}, wrong, num=1)
    assert (episode.stop_reason, len(episode.trajectories[0].turns)) == ("truncated", 3)
    (episode,) = played("user_rl", GYM | {"max_rounds": 3}, wrong, num=1)
    assert episode.stop_reason == "max_steps"


def test_a_gym_may_have_no_config_and_say_itself_what_is_solved() -> None:
    plain = {"gym": f"{SHAPED}:Plain"}
    for content in ("yes", "no"):
        action = calls("interact_with_env", choice="answer", content=content)
        (episode,) = played("user_rl", plain, lambda _, action=action: action, num=1)
        assert (episode.success, episode.reward) == (content == "yes", 0.25)
    (episode,) = played("user_rl", GYM | {"success_reward": None}, guesses, num=1)
    assert episode.success is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gym": "riddles"}, "gym is 'riddles'; write package.module:Class"),
        ({"config": {"max_step": 3}}, "Config has no 'max_step'. Did you mean 'max_steps'"),
        ({"config": None, "tasks": ["riddle-1"]}, "give config too"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "user_rl", GYM | given)


def test_there_is_no_expert() -> None:
    with pytest.raises(ConfigError, match="RiddleEnv has no expert; use another policy"):
        registry.create("environments", "user_rl", GYM).expert("agent")
