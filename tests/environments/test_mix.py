"""The mix: shares that hold from the first task on, and everything else as the environments have it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.collect import Play, play_all
from understudy.environments import (
    HasRelabelling,
    HasScore,
    HasSnapshots,
    HasTasks,
    Observation,
    Reward,
    Score,
    Step,
    says,
    split_of,
    user,
)
from understudy.environments.grid import Grid
from understudy.environments.mix import Mix, MixedTasks, environment_of
from understudy.environments.mix.tasks import take_turns
from understudy.environments.reading import HasReading
from understudy.errors import ConfigError, EnvironmentFault
from understudy.policies import Policy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import JSON, ORIGIN, Episode, Message

MAZE = {"name": "grid", "arguments": {"size": 4, "min_moves": 1}}
SUMS = {"name": "math", "arguments": {"kinds": ["expression"], "max_operations": 1}}


class Plain:
    """The least that a mix takes: greets, and takes any answer."""

    agents = ("agent",)
    closed: list[str] = []  # noqa: RUF012

    def __init__(self, num_tasks: int = 3, fails_at_closing: bool = False) -> None:
        self.num_tasks = num_tasks
        self.fails_at_closing = fails_at_closing

    def tasks(self, split: str) -> Sequence[JSON]:
        return [{"split": split, "n": n} for n in range(self.num_tasks)]

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        return Step({"agent": Observation((user(f"Hello, {task}."),))})

    async def step(self, actions: Any) -> Step:
        return Step(rewards={"agent": Reward(0.5)}, terminated=True)

    async def close(self) -> None:
        self.closed.append(type(self).__name__)
        if self.fails_at_closing:
            raise OSError("still in use")


class Judged(Plain):
    """Has a judge, who wants to see the task as this environment has given it out."""

    async def score(self, episode: Episode) -> Score:
        return Score(reward=float(episode.task["n"]), success=episode.task["n"] > 0)


class Endless(Plain):
    """Has no task set."""

    tasks = None  # type: ignore[assignment]


def component(kind: type, **arguments: Any) -> dict[str, Any]:
    return {"name": f"{__name__}:{kind.__name__}", "arguments": arguments}


def sized(shares: dict[str, float], **sizes: int) -> MixedTasks:
    return MixedTasks({name: list(range(size)) for name, size in sizes.items()}, shares)


def names(tasks: MixedTasks) -> str:
    """Return whose the tasks are, in order; for names of one letter."""
    return "".join(task["environment"] for task in tasks)


def play(mix: dict[str, Any], policy: Policy, num: int, **options: Any) -> list[Episode]:
    made = Mix(mix)
    tasks = enumerate(made.tasks("train")[:num])
    plays = [Play(str(n), environment_of(made, task, "mix"), task, seed=n, split="train") for n, task in tasks]
    found: list[Episode] = []
    asyncio.run(play_all(plays, lambda: Mix(mix), {"agent": policy}, found.append, concurrency=3, **options))
    return sorted(found, key=lambda episode: int(episode.id))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_every_beginning_has_the_shares_as_exactly_as_whole_numbers_can(shares: list[int]) -> None:
    had = [0] * len(shares)
    most = 1 - Fraction(1, max(2, 2 * len(shares) - 2))
    for turn, whose in enumerate(islice(take_turns(shares), 2 * sum(shares)), start=1):
        had[whose] += 1
        assert all(abs(Fraction(turn * share, sum(shares)) - n) <= most for share, n in zip(shares, had, strict=True))


@pytest.mark.parametrize(
    ("shares", "order"),
    [
        ({"a": 1, "b": 1}, "abababababab"),
        ({"a": 2, "b": 1}, "abaabaabaaba"),
        ({"a": 0.1, "b": 0.2, "c": 0.1}, "bacbbacbbacb"),
        ({"a": 5, "b": 1}, "aaabaaaaabaa"),
        ({"a": 3}, "aaaaaaaaaaaa"),
    ],
)
def test_environments_take_turns_evenly(shares: dict[str, float], order: str) -> None:
    assert names(sized(shares, **dict.fromkeys(shares, 100)))[:12] == order


def test_the_order_in_a_config_means_nothing() -> None:
    one, other = sized({"b": 2, "a": 2, "c": 1}, b=9, a=9, c=9), sized({"c": 1, "a": 2, "b": 2}, c=9, a=9, b=9)
    assert list(one) == list(other)


def test_a_task_says_whose_it_is_and_none_comes_twice() -> None:
    tasks = sized({"a": 2, "b": 1}, a=20, b=10)
    assert tasks[:3] == [{"environment": name, "task": n} for name, n in (("a", 0), ("b", 0), ("a", 1))]
    assert tasks[-1] == list(tasks)[29]
    assert len({str(task) for task in tasks}) == len(tasks) == 30
    with pytest.raises(IndexError):
        tasks[30]


def test_the_set_ends_where_it_is_the_turn_of_one_that_has_no_more() -> None:
    tasks = sized({"a": 2, "b": 1}, a=100, b=4)
    assert (len(tasks), Counter(names(tasks))) == (13, {"a": 9, "b": 4})
    assert names(tasks) == names(sized({"a": 2, "b": 1}, a=100, b=100))[:13]
    assert tasks.lacking(30) == {"b": 10}
    assert tasks.lacking(180) == {"a": 120, "b": 60}
    assert tasks.lacking(13) == {}
    assert len(sized({"a": 1, "b": 1}, a=5, b=0)) == 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5))
@settings(max_examples=80, deadline=None)
def test_in_proportion_to_their_sizes_all_tasks_are_used(sizes: list[int]) -> None:
    named = {str(n): size for n, size in enumerate(sizes)}
    assert Counter(names(sized(named, **named))) == {name: size for name, size in named.items() if size}


@pytest.mark.parametrize(
    ("temperature", "counts"),
    [(1, {"large": 900, "small": 100}), (2, {"large": 300, "small": 100}), (1000, {"large": 100, "small": 100})],
)
def test_with_a_temperature_shares_are_powers_of_the_sizes(temperature: float, counts: dict[str, int]) -> None:
    mix = Mix(
        {"large": component(Plain, num_tasks=900), "small": component(Plain, num_tasks=100)}, temperature=temperature
    )
    tasks = mix.tasks("train")
    found = Counter(task["environment"] for task in tasks)
    assert all(abs(found[name] - count) <= 2 for name, count in counts.items())


def test_splits_are_those_of_the_environments() -> None:
    mix = Mix({"maze": MAZE, "sums": SUMS})
    assert isinstance(mix, HasTasks)
    for split in ("train", "validation", "test"):
        assert {split_of(task["task"]) for task in mix.tasks(split)[:60]} == {split}


@pytest.mark.parametrize(
    ("environments", "temperature", "said"),
    [
        ({"maze": "grit"}, None, r"environments.maze: unknown environment 'grit'. Did you mean 'grid'\?"),
        ({"maze": {"name": "grid", "arguments": {"sise": 4}}}, None, r"environments.maze: .*Did you mean 'size'\?"),
        ({"maze": {"name": "grid", "rate": 4}}, None, r"environments.maze.rate: unknown key. Did you mean .*ratio"),
        ({"maze": {"name": "grid", "ratio": 0}}, None, "environments.maze.ratio: should be greater than 0"),
        ({"maze": {"ratio": 1}}, None, "environments.maze.name"),
        ({"maze": MAZE | {"ratio": 1}, "sums": SUMS}, None, "environments.sums has no ratio while others do"),
        ({"maze": MAZE | {"ratio": 1}}, 2, "either ratios or temperature, not both"),
        ({"maze": MAZE}, 0.5, "temperature: should be greater than or equal to 1"),
        ({"maze": MAZE}, float("inf"), "temperature: should be a finite number"),
        ({}, None, "environments is empty; name one at least"),
        (["grid"], None, "environments: should be a"),
        ({"maze": MAZE, "endless": component(Endless)}, None, "environments.endless: .*Endless has no tasks"),
        ({"maze": MAZE, "talk": "debate"}, None, "talk: its agents are pro, contra, and those of maze are"),
    ],
)
def test_what_cannot_be_mixed_is_refused(environments: Any, temperature: float | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Mix(environments, temperature=temperature)


def test_each_episode_is_played_in_its_own_environment() -> None:
    episodes = play({"maze": MAZE | {"ratio": 1}, "sums": SUMS | {"ratio": 2}}, ExpertPolicy(), 12)
    assert Counter(episode.environment for episode in episodes) == {"sums": 8, "maze": 4}
    assert all(episode.success for episode in episodes)
    prompts = {episode.environment: episode.trajectories[0].messages()[0].text() for episode in episodes}
    assert "on a map" in prompts["maze"]
    assert "on a map" not in prompts["sums"]


def test_without_a_task_the_seed_draws_by_the_shares() -> None:
    async def drawn() -> list[str]:
        mix = Mix({"rare": component(Plain) | {"ratio": 1}, "common": component(Judged) | {"ratio": 9}})
        out = []
        for seed in range(200):
            await mix.reset(seed=seed)
            out.append(mix._under_way)
        return out

    found = asyncio.run(drawn())
    assert found == asyncio.run(drawn())
    assert 5 <= found.count("rare") <= 40


@pytest.mark.parametrize(
    "task", [{}, [], "maze", 3, {"environment": "maize", "task": 1}, {"environment": [], "task": 1}]
)
def test_a_task_of_none_of_them_is_refused(task: JSON) -> None:
    with pytest.raises(EnvironmentFault, match="no task of Mix"):
        asyncio.run(Mix({"maze": MAZE}).reset(task))


def test_nothing_goes_on_before_an_episode_has_begun() -> None:
    mix = Mix({"maze": MAZE})
    with pytest.raises(EnvironmentFault, match="reset the environment first"):
        mix.expert("agent")(Observation())
    assert isinstance(mix, HasSnapshots)
    mix.restore(mix.snapshot())


def test_a_snapshot_brings_the_environment_back_that_was_being_played() -> None:
    async def check() -> None:
        mix = Mix({"maze": MAZE, "sums": SUMS})
        assert isinstance(mix, HasSnapshots)
        tasks, expert = mix.tasks("train"), mix.expert("agent")
        first = (await mix.reset(tasks[0])).observations["agent"]
        snapshot, action = mix.snapshot(), expert(first)
        await mix.reset(tasks[1])
        mix.restore(snapshot)
        assert expert(first) == action
        assert tasks[0]["environment"] != tasks[1]["environment"]

    asyncio.run(check())


def test_a_mix_offers_what_its_environments_do() -> None:
    def offered(**environments: Any) -> list[bool]:
        mix = Mix(environments)
        return [isinstance(mix, protocol) for protocol in (HasSnapshots, HasReading, HasScore, HasRelabelling)]

    assert offered(a=MAZE, b=MAZE) == [True, True, False, True]
    assert offered(a=MAZE, b=SUMS) == [True, False, False, True]
    assert offered(a=MAZE, b=component(Judged)) == [False, False, True, True]
    assert offered(a=component(Plain)) == [False, False, False, False]


def test_a_policy_that_asks_for_experts_is_told_which_environment_has_none() -> None:
    with pytest.raises(ConfigError, match=r"environments\.plain: Plain has no expert; use another policy"):
        play({"maze": MAZE, "plain": component(Plain)}, ExpertPolicy(), 1)


def test_a_judge_sees_its_own_task_and_judges_no_other_environment() -> None:
    mix = {"plain": component(Plain), "judged": component(Judged)}
    episodes = play(mix, RandomPolicy(), 6)
    assert {e.task["task"]["n"]: (e.reward, e.success) for e in episodes if e.environment == "judged"} == {
        0: (0.0, False),
        1: (1.0, True),
        2: (2.0, True),
    }
    assert {(e.reward, e.success) for e in episodes if e.environment == "plain"} == {(0.5, None)}


def test_a_reading_is_that_of_the_tasks_own_environment() -> None:
    mix = Mix({"small": MAZE, "boxes": {"name": "grid", "arguments": {"puzzle": "sokoban", "min_moves": 2}}})
    assert isinstance(mix, HasReading)

    async def opening(task: JSON) -> tuple[Message, ...]:
        return (await mix.reset(task)).observations["agent"].messages

    for task in mix.tasks("train")[:2]:
        seen = asyncio.run(opening(task))
        grid = Grid(puzzle="path" if task["environment"] == "small" else "sokoban")
        assert mix.read(task, [*seen, says("Hm.")]) == grid.read(task["task"], [*seen, says("Hm.")])


def test_hindsight_gives_tasks_of_the_same_environment_and_passes_by_what_cannot_say() -> None:
    mix = {"maze": MAZE | {"ratio": 9}, "plain": component(Plain) | {"ratio": 1}}
    found = Mix(mix)
    assert isinstance(found, HasRelabelling)
    episodes = play(mix, RandomPolicy(), 30)
    failed = [episode for episode in episodes if episode.environment == "maze" and episode.success is False]
    relabelled = [one for episode in failed for one in found.relabel(episode)]
    assert len(relabelled) >= 3
    for one in relabelled:
        assert (one.environment, one.success, one.task["environment"]) == ("maze", True, "maze")
        assert split_of(one.task["task"]) == one.split
        assert one.metadata[ORIGIN] in {episode.id for episode in failed}
    assert [found.relabel(episode) for episode in episodes if episode.environment == "plain"] == [[]] * 3


def test_all_are_closed_even_where_one_fails_at_it() -> None:
    Plain.closed.clear()
    mix = Mix({"a": component(Plain, fails_at_closing=True), "b": component(Judged)})
    with pytest.raises(OSError, match="still in use"):
        asyncio.run(mix.close())
    assert Plain.closed == ["Plain", "Judged"]


def test_a_mix_can_be_of_mixes() -> None:
    inner = {"name": "mix", "arguments": {"environments": {"maze": MAZE, "sums": SUMS}}}
    episodes = play({"both": inner, "sums": SUMS}, ExpertPolicy(), 8)
    assert all(episode.success for episode in episodes)
    assert Counter(episode.environment for episode in episodes) == {"both": 4, "sums": 4}
    rng = random.Random(0)
    assert rng.choice(Mix({"both": inner}).tasks("test"))["task"].keys() == {"environment", "task"}
