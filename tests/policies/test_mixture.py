"""The mixture succeeds as often as it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments.grid import Grid
from understudy.environments.math import Math
from understudy.errors import ConfigError
from understudy.policies.mixture import MixturePolicy
from understudy.types import Episode

NUM = 200


def play(make: Any, policy: Any, num: int = NUM, **options: Any) -> list[Episode]:
    tasks = make().tasks("train")
    episodes: list[Episode] = []
    plays = [Play(id=f"e{i}", task=tasks[i], seed=i) for i in range(num)]
    asyncio.run(play_all(plays, make, {"agent": policy}, episodes.append, concurrency=4, **options))
    assert [episode.error for episode in episodes if episode.error is not None] == []
    return episodes


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_drawn_by_episode_the_chance_is_the_success_rate(chance: float) -> None:
    found = sum(bool(e.success) for e in play(Math, MixturePolicy(chance, per="episode"), max_turns=6)) / NUM
    assert abs(found - chance) < 0.09  # three standard errors of 200 draws at 0.3


def test_drawn_by_turn_both_act_within_an_episode() -> None:
    policy = MixturePolicy(0.5, other={"name": "replay", "arguments": {"source": []}})
    episodes = play(Grid, MixturePolicy(0.8), num=60, max_turns=20)
    rates = [sum(bool(e.success) for e in play(Grid, MixturePolicy(c), num=60, max_turns=20)) for c in (0.2, 0.8)]
    assert rates[0] < rates[1] < 60
    assert all(trajectory.policy == "mixture" for e in episodes for trajectory in e.trajectories)
    assert policy.identity()["other"] == {"name": "replay", "source": "(given episodes)"}  # type: ignore[index,call-overload]


def test_where_the_expert_is_stuck_the_other_acts() -> None:
    episodes = play(lambda: Grid(puzzle="sokoban", size=5, spare_moves=20), MixturePolicy(0.5), num=60, max_turns=20)
    assert any(not episode.success for episode in episodes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"chance": 1.5}, "chance is 1.5; it is a share"),
        ({"chance": 0.5, "per": "trun"}, "Did you mean 'turn'"),
        ({"chance": 0.5, "policy": "exprt"}, "unknown policy 'exprt'. Did you mean 'expert'"),
        ({"chance": 0.5, "other": {"nme": "random"}}, "nme: unknown key. Did you mean 'name'"),
        ({}, "mixture needs the argument 'chance'"),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("policies", "mixture", arguments)
