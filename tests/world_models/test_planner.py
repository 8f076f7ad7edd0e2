"""Planning in a dream makes a policy better in the real environment, and takes what its scorer calls best."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.world_models.conftest import CORRIDOR, WANDERER, collected
from understudy import registry
from understudy.errors import ConfigError, PolicyError
from understudy.evaluate import compare, outcome_of
from understudy.formats import read_episodes
from understudy.types import Episode
from understudy.world_models.planner import _all_of
from understudy.world_models.scorers import ImaginedRollout

HERE = f"{__package__}.test_planner"


def constant(rollout: ImaginedRollout) -> float:
    """A scorer to which all ends are alike."""
    return 1.0


def leftmost(rollout: ImaginedRollout) -> float:
    """A scorer that likes to be on the left."""
    return -float(rollout.messages[-1].text().split()[1])


async def slow_leftmost(rollout: ImaginedRollout) -> float:
    """The same, as a coroutine."""
    return leftmost(rollout)


def broken(rollout: ImaginedRollout) -> float:
    """A scorer with a mistake in it."""
    return 1 / 0


def undecided(rollout: ImaginedRollout) -> float:
    """A scorer that gives no number for the rollouts that go left."""
    return float("nan") if rollout.messages[-rollout.num_imagined].text() == "left" else 1.0


def local(model: str, **arguments: Any) -> dict[str, Any]:
    return {"name": "local", "arguments": {"model": model, "temperature": 1.0, "max_new_tokens": 8} | arguments}


def planner(model: str, **arguments: Any) -> dict[str, Any]:
    given = {"policy": local(model), "world_model": model, "num_rollouts": 8, "depth": 5}
    return {"name": "planner", "arguments": given | arguments}


def played(folder: Path, policy: dict[str, Any], num: int = 15, **settings: Any) -> list[Episode]:
    return list(read_episodes(collected(folder, policy=policy, num_episodes=num, **settings)))


def rate(episodes: list[Episode]) -> float:
    return sum(episode.success is True for episode in episodes) / len(episodes)


def test_a_policy_that_plans_beats_itself_without(model: str, tmp_path: Path) -> None:
    alone, planning = (
        played(tmp_path / folder, policy, 60, samples_per_task=4)
        for folder, policy in (("alone", local(model)), ("planning", planner(model)))
    )
    found = compare([outcome_of(e) for e in alone], [outcome_of(e) for e in planning]).success
    assert found is not None
    assert 0.2 < rate(alone) < 0.8
    assert rate(planning) > 0.8
    assert found.low > 0.1


def test_what_was_imagined_is_written_down_and_counted(model: str, tmp_path: Path) -> None:
    episodes = played(tmp_path / "out", planner(model, num_rollouts=4, depth=2), 5)
    assert [episode.error for episode in episodes] == [None] * 5
    for episode in episodes:
        (trajectory,) = episode.trajectories
        assert trajectory.policy == "planner"
        for turn in (turn for turn in trajectory.turns if turn.action is not None):
            planning = turn.annotations["planning"]
            assert len(planning["scores"]) == 4
            assert planning["scores"][planning["chosen"]] == max(planning["scores"])
            assert 1 <= planning["num_actions"] <= 2
            assert turn.sampled is not None
            assert turn.annotations["usage"]["completion_tokens"] > 4 * len(turn.sampled.output_ids)


def test_the_same_episode_is_planned_in_the_same_way(model: str, tmp_path: Path) -> None:
    first, second = (played(tmp_path / name, planner(model), 4) for name in "ab")
    assert [e.trajectories for e in first] == [e.trajectories for e in second]


@pytest.mark.parametrize("scorer", ["leftmost", "slow_leftmost"])
def test_a_scorer_of_ones_own_decides(model: str, tmp_path: Path, scorer: str) -> None:
    policy = planner(model, depth=1, scorer=f"{HERE}:{scorer}")
    episodes = played(tmp_path / "out", policy, 10)
    actions = Counter(turn.action.text() for e in episodes for _, _, turn in e.turns() if turn.action is not None)
    assert actions["left"] >= 0.8 * actions.total()


def test_among_equal_ends_the_commonest_action_is_taken(model: str, tmp_path: Path) -> None:
    policy = planner(model, policy=local(model, temperature=0.15), depth=1, num_rollouts=9, scorer=f"{HERE}:constant")
    planned = played(tmp_path / "planned", policy, 15, max_turns=1)
    likeliest = played(tmp_path / "likeliest", local(model, temperature=0.0), 15, max_turns=1)
    same = [
        a.trajectories[0].turns[0].action == b.trajectories[0].turns[0].action
        for a, b in zip(planned, likeliest, strict=True)
    ]
    assert sum(same) >= 12


def test_a_text_that_stands_for_success_can_be_the_scorer(model: str, tmp_path: Path) -> None:
    scorer = {"name": "text", "arguments": {"text": "at 0 door 0 left 2"}}
    episodes = played(tmp_path / "out", planner(model, depth=1, scorer=scorer), 6)
    assert [episode.error for episode in episodes] == [None] * 6
    scores = [
        s for e in episodes for _, _, turn in e.turns() for s in turn.annotations.get("planning", {}).get("scores", ())
    ]
    assert all(score < 0 for score in scores)
    assert len(set(scores)) > 5


def test_a_rollout_that_leaves_no_room_for_the_text_is_the_worst_and_ends_nothing(model: str, tmp_path: Path) -> None:
    scorer = {"name": "text", "arguments": {"text": "at 0 door 0 left 2"}}
    small = {"model": model, "max_context": 100}
    episodes = played(tmp_path / "out", planner(model, depth=8, scorer=scorer, world_model=small), 8)
    assert [episode.error for episode in episodes] == [None] * 8
    assert all(episode.num_actions() > 0 for episode in episodes)
    first = [episode.trajectories[0].turns[0].annotations["planning"] for episode in episodes]
    assert any(None in planning["scores"] for planning in first)
    for planning in first:
        chosen = planning["scores"][planning["chosen"]]
        assert chosen is not None or set(planning["scores"]) == {None}


def test_a_broken_scorer_ends_its_episodes_and_no_more(model: str, tmp_path: Path) -> None:
    episodes = played(tmp_path / "out", planner(model, scorer=f"{HERE}:broken"), 2)
    assert ["the scorer failed: ZeroDivisionError" in str(episode.error) for episode in episodes] == [True] * 2


def test_a_score_that_is_no_number_is_a_fault_and_not_passed_over(model: str, tmp_path: Path) -> None:
    episodes = played(tmp_path / "out", planner(model, depth=1, scorer=f"{HERE}:undecided"), 4)
    assert any("the scorer gave no number (nan)" in str(episode.error) for episode in episodes)
    for _, _, turn in (found for episode in episodes for found in episode.turns()):
        assert all(score == 1.0 for score in turn.annotations.get("planning", {}).get("scores", ()))


def test_all_rollouts_are_over_when_a_fault_of_one_is_raised() -> None:
    ended: list[int] = []

    async def rollout(number: int) -> Any:
        await asyncio.sleep(0.001 * number)
        ended.append(number)
        if number == 0:
            raise PolicyError("broken")

    with pytest.raises(PolicyError, match="broken"):
        asyncio.run(_all_of([rollout(number) for number in range(3)]))
    assert ended == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"policy": {"name": "local", "arguments": {"model": "m"}}},
            "temperature is 0: all rollouts would be the same",
        ),
        ({"policy": "wandrer"}, "unknown policy 'wandrer'"),
        ({"num_rollouts": 0}, "num_rollouts 0 and depth 5 are 1 or more"),
        ({"scorer": "enviroment"}, "unknown scorer 'enviroment'. Did you mean 'environment'"),
        ({"scorer": {"name": "text", "arguments": {"text": " "}}}, "text is empty"),
        ({"scorer": f"{CORRIDOR}"}, "is no Scorer"),
        ({"ends": {"a": "["}}, "ends.a: '\\[' is no regular expression"),
        ({"world_model": {}}, "world_model: model: is required"),
    ],
)
def test_a_planner_that_cannot_be_made_says_why(model: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("policies", "planner", planner(model, **arguments)["arguments"])


def test_an_environment_that_replaces_the_conversation_is_refused(model: str, tmp_path: Path) -> None:
    grid = {"name": "grid", "arguments": {"view": "replace"}}
    with pytest.raises(ConfigError, match="adds to the conversation, and this one replaces it"):
        played(tmp_path / "out", planner(model, policy=WANDERER), 1, environment=grid)


def test_in_a_mix_each_environment_reads_its_own(model: str, tmp_path: Path) -> None:
    mix = {"name": "mix", "arguments": {"environments": {"hall": CORRIDOR, "way": CORRIDOR}}}
    episodes = played(tmp_path / "out", planner(model), 10, environment=mix)
    assert {(e.environment, e.error) for e in episodes} == {("hall", None), ("way", None)}
    scored = {
        (e.environment, score)
        for e in episodes
        for _, _, turn in e.turns()
        for score in turn.annotations.get("planning", {}).get("scores", ())
    }
    assert scored >= {("hall", 1.0), ("hall", 0.0), ("way", 1.0), ("way", 0.0)}


def test_an_environment_that_reads_nothing_needs_another_scorer(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Math cannot read off a conversation how it stands; name another scorer"):
        played(tmp_path / "out", planner(model, policy=WANDERER), 1, environment={"name": "math"})
