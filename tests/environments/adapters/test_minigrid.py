"""MiniGrid's and BabyAI's own worlds, played by names of actions and by BabyAI's bot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments import SPLITS, HasExpert, says, task_key
from understudy.errors import ConfigError
from understudy.policies import Policy
from understudy.policies.labelled import LabelledPolicy
from understudy.policies.mixture import MixturePolicy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import Episode

from .collecting import curated
from .playing import played, said

pytest.importorskip("minigrid", reason="needs pip install 'understudy[minigrid]'")

LOCAL = {"id": "BabyAI-GoToLocal-v0"}
LEVELS = {
    "BabyAI-GoToLocal-v0": 30,
    "BabyAI-PickupLoc-v0": 30,
    "BabyAI-PutNextLocal-v0": 20,
    "BabyAI-UnlockLocal-v0": 20,
    "BabyAI-GoToSeqS5R2-v0": 20,
    "BabyAI-GoToObjMazeS4-v0": 10,
    "BabyAI-MiniBossLevel-v0": 10,
}
"""Levels that ask for each of the bot's skills, and how many tasks of each are played."""


def play(arguments: dict[str, Any], policy: Policy, num: int, **options: Any) -> list[Episode]:
    def make() -> Any:
        return registry.create("environments", "minigrid", arguments)

    tasks = make().tasks("test")
    plays = [Play(id=str(n), environment="minigrid", task=tasks[n], seed=n, split="test") for n in range(num)]
    episodes: list[Episode] = []
    asyncio.run(play_all(plays, make, {"agent": policy}, episodes.append, concurrency=3, **options))
    return sorted(episodes, key=lambda episode: int(episode.id))


def successes(episodes: Sequence[Episode]) -> int:
    assert [episode.error for episode in episodes if episode.error is not None] == []
    return sum(episode.success is True for episode in episodes)


def test_the_agent_reads_the_mission_and_what_lies_before_it() -> None:
    episode = play(LOCAL, ExpertPolicy(), 1)[0]
    told = said(episode)
    assert told[0][1].startswith(
        "Fulfil the mission: write one of left, right, forward, pickup, drop, toggle, done and nothing else."
    )
    assert told[1:4] == [
        (
            "user",
            "mission: go to the red ball\n"
            "#######\n.k...k#\n...^..#\n"
            "you carry: nothing\n"
            "you see: green key, 1 ahead and 2 left; red key, 1 ahead and 2 right",
        ),
        ("assistant", "right"),
        (
            "user",
            "?######\n?#k..b.\n?#.....\n?#.^.b.\n"
            "you carry: nothing\n"
            "you see: green box, 2 right; red key, 2 ahead and 1 left; blue box, 2 ahead and 2 right",
        ),
    ]
    assert (episode.success, episode.stop_reason, episode.error) == (True, "terminated", None)
    assert 0.9 < (episode.reward or 0) < 1


def test_doors_keys_and_what_is_carried_are_told() -> None:
    views = [text for e in play({"id": "BabyAI-UnlockLocal-v0"}, ExpertPolicy(), 5) for _, text in said(e)[1:]]
    assert any(" key\nyou see: locked " in view and "L" in view for view in views)
    lava = said(played("minigrid", {"id": "MiniGrid-LavaGapS5-v0"}, lambda _: says("right"), num=1)[0])
    assert "~" in lava[1][1]
    assert "mission: avoid the lava and get to the green goal square\n" in lava[1][1]


@pytest.mark.parametrize("level", LEVELS)
def test_the_bot_fulfils_all_missions_and_chance_few(level: str) -> None:
    num = LEVELS[level]
    assert successes(play({"id": level}, ExpertPolicy(), num)) == num
    assert successes(play({"id": level}, RandomPolicy(), num, max_turns=30)) <= 0.3 * num


def test_the_bot_says_what_to_do_wherever_others_have_led() -> None:
    for level in LEVELS:
        policy = LabelledPolicy(MixturePolicy(0.5), ExpertPolicy())
        episodes = play({"id": level}, policy, 6, max_turns=20)
        assert [episode.error for episode in episodes if episode.error is not None] == []
        happened = [turn for episode in episodes for _, _, turn in episode.turns() if turn.action and not turn.is_label]
        assert any(turn.annotations.get("agrees") is False for turn in happened)
        assert sum("unlabelled" in turn.annotations for turn in happened) < len(happened) / 10


def test_a_bot_that_would_go_round_in_a_circle_within_one_decision_holds_nobody_up() -> None:
    """Left alone, it never gives its advice in this world, where it turns from one door to the other."""
    episodes: list[Episode] = []
    plays = [Play(id="6", environment="minigrid", task={"seed": 6}, seed=6)]

    def make() -> Any:
        return registry.create("environments", "minigrid", {"id": "BabyAI-GoToImpUnlock-v0"})

    asyncio.run(play_all(plays, make, {"agent": ExpertPolicy()}, episodes.append, concurrency=1))
    assert (episodes[0].error, episodes[0].success, episodes[0].stop_reason) == (None, False, "truncated")


def test_where_the_bot_knows_no_way_the_expert_is_stuck() -> None:
    (episode,) = play({"id": "BabyAI-KeyInBox-v0"}, ExpertPolicy(), 1)
    assert "ExpertStuck: BabyAI's bot knows no way on from here" in (episode.error or "")


def test_a_task_is_a_seed_that_decides_the_episode() -> None:
    for policy in (ExpertPolicy(), RandomPolicy()):
        first, again = (play(LOCAL, policy, 6, max_turns=10) for _ in range(2))
        assert [e.trajectories for e in first] == [e.trajectories for e in again]
    assert len({said(e)[1] for e in first}) == len(first)


def test_splits_do_not_overlap() -> None:
    environment = registry.create("environments", "minigrid", LOCAL)
    keys = [{task_key(task) for task in environment.tasks(split)[:100]} for split in SPLITS]
    assert len(set.union(*keys)) == 300


def test_what_is_no_action_is_answered_and_falls_without_success() -> None:
    (episode,) = played("minigrid", LOCAL | {"max_steps": 2}, lambda _: says("jump"), num=1)
    expected = "That is no action. Write one of: left, right, forward, pickup, drop, toggle, done."
    assert said(episode)[3] == ("user", expected)
    assert (episode.success, episode.stop_reason) == (False, "max_steps")
    assert said(episode)[1][1].count("mission:") == 1


def test_the_bots_episodes_are_collected_and_curated(tmp_path: Path) -> None:
    settings = ("environment.name=minigrid", f"environment.arguments.id={LOCAL['id']}")
    assert [episode.success for episode in curated(tmp_path, *settings)] == [True] * 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"id": "BabyAI-GoToLocl-v0"}, "BabyAI-GoToLocl"),
        ({"id": "FrozenLake-v1"}, "FrozenLake-v1 is no world of MiniGrid; play it as environment.name: gymnasium"),
        ({"id": "BabyAI-GoToLocal-v0", "arguments": {"rooms": 3}}, "unexpected keyword argument 'rooms'"),
        ({"id": "BabyAI-GoToLocal-v0", "actions": ["a", "b"]}, "has 7 actions; give each a name"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "minigrid", given)


def test_worlds_without_instructions_have_no_expert() -> None:
    environment = registry.create("environments", "minigrid", {"id": "MiniGrid-Empty-5x5-v0"})
    assert isinstance(environment, HasExpert)
    with pytest.raises(ConfigError, match="MiniGrid-Empty-5x5-v0 has no expert"):
        environment.expert("agent")
