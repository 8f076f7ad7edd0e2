"""gymnasium's own toy texts, played by names of actions."""

from __future__ import annotations

from typing import Any

import pytest

from understudy import registry
from understudy.environments import Observation, says
from understudy.errors import ConfigError

from .playing import played, said

gymnasium = pytest.importorskip("gymnasium")

LAKE = {"id": "FrozenLake-v1", "arguments": {"is_slippery": False}, "success_reward": 1}
WAY = ["down", "Down!", "I go right.", "down", "right", "right"]
"""A way over the lake of four by four, said in several manners."""


def walk(way: list[str]) -> Any:
    left = iter(way)
    return lambda observation: says(next(left))


def test_the_agent_reads_the_drawing_and_writes_names_of_actions() -> None:
    (episode,) = played("gymnasium", LAKE, walk(WAY), num=1)
    assert (episode.error, episode.success, episode.reward, episode.stop_reason) == (None, True, 1.0, "terminated")
    assert said(episode)[:4] == [
        ("system", "Act in the environment: write one of left, down, right, up and nothing else."),
        ("user", "[S]FFF\nFHFH\nFFFH\nHFFG\nobservation: 0"),
        ("assistant", "down"),
        ("user", "(Down)\nSFFF\n[F]HFH\nFFFH\nHFFG\nobservation: 4"),
    ]
    assert episode.trajectories[0].turns[0].annotations["info"]["observation"] == 0


def test_what_is_no_action_is_answered_and_costs_a_step() -> None:
    (episode,) = played("gymnasium", LAKE | {"max_steps": 2}, lambda _: says("upwards"), num=1)
    assert said(episode)[3] == ("user", "That is no action. Write one of: left, down, right, up.")
    assert (episode.success, episode.stop_reason, len(episode.trajectories[0].turns)) == (False, "max_steps", 3)


def test_a_task_is_a_seed_that_decides_the_episode() -> None:
    first, again = (played("gymnasium", {"id": "Taxi-v4", "max_steps": 5}) for _ in range(2))
    assert [said(e) for e in first] == [said(e) for e in again]
    assert len({said(e)[1] for e in first}) == len(first)
    assert {e.success for e in first} == {None}, "gymnasium says nothing of success, so it is unknown"


def test_only_actions_that_the_mask_allows_are_legal() -> None:
    (episode,) = played("gymnasium", {"id": "Taxi-v4", "max_steps": 1}, num=1)
    opening = episode.trajectories[0].turns[0].annotations
    mask = opening["info"]["info"]["action_mask"]
    names = ("south", "north", "east", "west", "pickup", "dropoff")
    assert opening["legal_actions"] == [name for name, may in zip(names, mask, strict=True) if may] != list(names)


class Echo(gymnasium.Env):  # type: ignore[misc, name-defined]
    """Takes any text, and says itself what a success is."""

    action_space = gymnasium.spaces.Text(50)
    observation_space = gymnasium.spaces.Text(50)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "say it", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return action.upper(), 0.5, True, False, {"success": action == "it"}


def test_actions_may_be_any_text_and_info_may_tell_success() -> None:
    gymnasium.register("Echo-v0", entry_point=Echo, disable_env_checker=True)
    for text in ("it", "not it"):
        (episode,) = played("gymnasium", {"id": "Echo-v0", "instructions": "Say it."}, walk([text]), num=1)
        expected = [("system", "Say it."), ("user", "say it"), ("assistant", text), ("user", text.upper())]
        assert said(episode) == expected
        assert (episode.reward, episode.success) == (0.5, text == "it")


def test_numbers_are_the_names_where_none_are_known() -> None:
    environment = registry.create("environments", "gymnasium", {"id": "CartPole-v1"})
    seen: list[Observation] = []

    def decide(observation: Observation) -> Any:
        seen.append(observation)
        return says("1")

    (episode,) = played("gymnasium", {"id": "CartPole-v1"}, decide, num=1)
    assert episode.error is None
    assert seen[0].legal_actions == ("0", "1")
    assert environment.agents == ("agent",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"id": "FrozenLak-v1"}, "gymnasium cannot make 'FrozenLak-v1'"),
        ({"id": "FrozenLake-v1", "arguments": {"slippery": 1}}, "unexpected keyword argument 'slippery'"),
        ({"id": "FrozenLake-v1", "actions": ["l", "r"]}, "FrozenLake-v1 has 4 actions; give each a name"),
        ({"id": "Pendulum-v1"}, "only Discrete and Text can be written"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "gymnasium", given)
