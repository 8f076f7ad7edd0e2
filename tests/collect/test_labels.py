"""DAgger's labels: beside what a learner did stands what an expert would have done, in the very state and context."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.collect.test_rollout import Told, asks, play, says
from understudy.collect import CollectConfig, Play, collect, play_episode
from understudy.curate import EpisodeStatistics
from understudy.environments import ExpertStuck, Observation, Reward, Step
from understudy.environments.grid import Grid
from understudy.environments.math import Math
from understudy.errors import ConfigError, PolicyError
from understudy.formats import read_episodes
from understudy.policies import Action, Context, Policy
from understudy.policies.labelled import LabelledPolicy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.replay import ReplayPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import Episode, Message, SampledTokens, ToolCall


class Says(Policy):
    """Says what it was given, turn by turn; an exception is raised."""

    def __init__(self, *actions: Any) -> None:
        self.actions = actions
        self.seen: list[Context] = []

    async def act(self, context: Context) -> Action:
        self.seen.append(context)
        action = self.actions[context.turn]
        if isinstance(action, Exception):
            raise action
        return action if isinstance(action, Action) else Action(action if isinstance(action, Message) else says(action))


END = Step(
    observations={"agent": Observation((Message("user", "bye"),))}, rewards={"agent": Reward(1.0)}, terminated=True
)


def labelled(policy: Policy, labeler: Policy, *, beta: float = 0.0, steps: Any = None) -> Episode:
    steps = (asks("one"), asks("two"), asks("three"), END) if steps is None else steps
    return play(Told(*steps), LabelledPolicy(policy, labeler, beta=beta))


class Endless(Policy):
    """Never comes to an end by itself."""

    num_running = 0

    async def act(self, context: Context) -> Action:
        self.num_running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.num_running -= 1
        raise AssertionError


@pytest.mark.parametrize("fails", ["policy", "labeler"])
def test_where_one_of_the_two_fails_the_other_does_not_go_on(fails: str) -> None:
    failing, endless = Says(PolicyError("gone")), Endless()
    context = Context(messages=(), tools=(), observation=Observation(()), turn=0, seed=0)

    async def act() -> int:
        pair = (failing, endless) if fails == "policy" else (endless, failing)
        with pytest.raises(PolicyError, match="gone"):
            await LabelledPolicy(*pair).act(context)
        return endless.num_running

    assert asyncio.run(act()) == 0


def test_a_label_is_a_sibling_that_is_trained_and_the_learners_action_is_context() -> None:
    ids = SampledTokens((1, 2), (3,))
    learner, expert = Says(Action(says("a"), sampled=ids), "b", "c"), Says("A", "b", "C")
    (trajectory,) = labelled(learner, expert).trajectories
    turns = trajectory.turns
    assert [turn.parent for turn in turns] == [None, None, 0, 2, 2, 3]
    assert [turn.action and turn.action.text() for turn in turns] == ["a", "A", "b", "c", "C", None]
    assert [turn.weight for turn in turns] == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert [turn.is_label for turn in turns] == [False, True, False, False, True, False]
    assert [turn.annotations.get("agrees") for turn in turns] == [False, None, True, False, None, None]
    assert [turn.annotations.get("label_of") for turn in turns] == [None, 0, None, None, 3, None]
    assert turns[0].sampled is ids
    assert turns[1].sampled is None
    assert [m.text() for m in trajectory.messages(4)] == ["one", "a", "two", "b", "three", "C"]
    assert [m.text() for m in trajectory.messages()] == ["one", "a", "two", "b", "three", "c", "bye"]
    assert [context.messages for context in learner.seen] == [context.messages for context in expert.seen]


def test_rewards_go_to_what_happened_and_labels_are_no_turns() -> None:
    steps = (
        asks(),
        Step(observations={"agent": Observation((Message("user", "2"),))}, rewards={"agent": Reward(0.5)}),
        Step(rewards={"agent": [Reward(1.0), Reward(0.25, turn=0)]}, terminated=True),
    )
    episode = labelled(Says("a", "b"), Says("A", "B"), steps=steps)
    assert [turn.reward for _, _, turn in episode.turns()] == [0.75, None, 1.0, None]
    assert episode.num_actions() == 2
    statistics = EpisodeStatistics()
    statistics.add(episode)
    counted = statistics.report()["overall"]
    assert (counted["num_turns"], counted["messages_by_role"]) == (2, {"assistant": 2, "user": 2})


def test_with_beta_one_the_labeler_acts_and_the_learner_is_not_asked() -> None:
    learner = Says()
    (trajectory,) = labelled(learner, Says("A", "B", "C"), beta=1.0).trajectories
    assert [turn.action and turn.action.text() for turn in trajectory.turns] == ["A", "B", "C", None]
    assert {turn.weight for turn in trajectory.turns} == {1.0}
    assert all(turn.annotations == {"acted": "policy", "agrees": True} for turn in trajectory.turns[:3])
    assert not learner.seen


def test_beta_is_the_share_of_turns_in_which_the_labeler_acts() -> None:
    acted = 0
    for number in range(200):
        policy = LabelledPolicy(Says("a", "b", "c"), Says("A", "B", "C"), beta=0.3)
        environment = Told(asks(), asks(), asks(), END)
        episode = asyncio.run(play_episode(environment, {"agent": policy}, Play(id=str(number))))
        acted += sum("acted" in turn.annotations for _, _, turn in episode.turns())
    assert 0.24 < acted / 600 < 0.36


def test_where_the_labeler_knows_no_way_on_nothing_is_trained_and_the_episode_goes_on() -> None:
    labeler = Says("A", ExpertStuck("lost"), "C")
    for beta in (0.0, 1.0):
        episode = labelled(Says("a", "b", "c"), labeler, beta=beta)
        assert episode.error is None
        (stuck,) = [turn for _, _, turn in episode.turns() if "unlabelled" in turn.annotations]
        assert (stuck.action, stuck.weight, stuck.annotations) == (says("b"), 0.0, {"unlabelled": "lost"})


def test_a_labeler_that_fails_ends_the_episode_by_a_fault() -> None:
    assert "RuntimeError: no" in (labelled(Says("a"), Says(RuntimeError("no"))).error or "")


def test_calls_are_the_same_whatever_their_ids_and_however_their_arguments_are_written() -> None:
    def calls(arguments: Any, id: str) -> Message:
        return Message("assistant", None, tool_calls=(ToolCall("f", arguments, id),))

    pairs = [
        (calls({"a": 1}, "x"), calls('{ "a": 1 }', "y"), True),
        (calls({"a": 1}, "x"), calls({"a": 2}, "x"), False),
        (calls("{", "x"), calls("{", "y"), True),
        (Message("assistant", ""), Message("assistant", None), True),
        (Message("assistant", "a", reasoning_content="so"), says("a"), False),
    ]
    for done, said, agrees in pairs:
        episode = labelled(Says(done), Says(said), steps=(asks(), END))
        assert episode.trajectories[0].turns[0].annotations["agrees"] is agrees


def test_in_a_sokoban_that_a_box_in_a_corner_has_spoilt_the_expert_says_so() -> None:
    task = {"puzzle": "sokoban", "map": ["#####", "#@-.#", "#-$-#", "#---#", "#####"], "max_moves": 9}
    environment = Grid(puzzle="sokoban", size=5, interface="text")
    policy = LabelledPolicy(Says("right", "down", "left"), ExpertPolicy())
    episode = asyncio.run(play_episode(environment, {"agent": policy}, Play(id="e", task=task), max_turns=3))
    assert [turn.annotations.get("unlabelled") for _, _, turn in episode.turns() if not turn.is_label][2:3] == [
        "the puzzle can no longer be solved"
    ]


def test_a_replay_does_what_happened_and_not_what_should_have() -> None:
    task = Math(kinds=["expression"]).tasks("train")[0]

    def run(policy: Policy) -> Episode:
        return asyncio.run(
            play_episode(Math(kinds=["expression"]), {"agent": policy}, Play(id="e", task=task), max_turns=9)
        )

    recorded = run(LabelledPolicy(RandomPolicy(), ExpertPolicy()))
    again = run(ReplayPolicy([recorded]))
    happened = [turn.action for _, _, turn in recorded.turns() if not turn.is_label]
    assert [turn.action for _, _, turn in again.turns()] == happened
    assert len(happened) < len(list(recorded.turns()))


def test_a_collection_with_a_labeler_counts_its_labels_and_goes_on(tmp_path: Path) -> None:
    config = CollectConfig(
        environment={"name": "grid"},
        policy={"name": "random"},
        labeler={"name": "expert"},
        beta=0.5,
        num_episodes=12,
        output_dir=str(tmp_path / "out"),
    )
    first = collect(config, statistics=EpisodeStatistics)
    stats = json.loads(first.stats_path.read_text())
    episodes = list(read_episodes(str(first.path)))
    turns = [turn for episode in episodes for _, _, turn in episode.turns()]
    labels = stats["labels"]
    assert labels["num_labels"] == stats["overall"]["num_turns"] == sum(episode.num_actions() for episode in episodes)
    assert labels["num_disagreeing"] == sum(turn.is_label for turn in turns) > 0
    assert 0.2 < labels["num_acted_by_labeler"] / labels["num_labels"] < 0.8
    assert sum(turn.weight for turn in turns if turn.action) == labels["num_labels"]
    more = collect(config.model_copy(update={"num_episodes": 14}))
    assert more.num_played == 2
    assert [e.id for e in read_episodes(str(more.path))][:12] == [e.id for e in episodes]
    with pytest.raises(ConfigError, match=r"holds a collection with beta 0.5, not 0.25"):
        collect(config.model_copy(update={"beta": 0.25}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"policy": {"name": "random"}, "beta": 0.5}, "give labeler"),
        ({"policies": {"agent": {"name": "random"}}, "labeler": {"name": "expert"}}, "which is not given"),
    ],
)
def test_a_beta_without_labeler_and_a_labeler_without_policy_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CollectConfig(environment={"name": "grid"}, output_dir="x", **given)
    with pytest.raises(ConfigError, match="it is a share"):
        LabelledPolicy(RandomPolicy(), ExpertPolicy(), beta=1.5)


def test_only_the_learners_agents_are_labelled(tmp_path: Path) -> None:
    config = CollectConfig(
        environment={"name": "team", "arguments": {"level": 1}},
        policy={"name": "random"},
        policies={"planner": {"name": "expert"}},
        labeler={"name": "expert"},
        num_episodes=4,
        output_dir=str(tmp_path / "out"),
    )
    for episode in read_episodes(str(collect(config).path)):
        labels = {t.agent: sum(turn.is_label for turn in t.turns) for t in episode.trajectories}
        assert labels["planner"] == 0
        assert labels["solver"] > 0
    everybody = {"planner": {"name": "expert"}, "solver": {"name": "random"}}
    with pytest.raises(ConfigError, match="labeler: labels what policy does, and policies names who plays planner, so"):
        collect(CollectConfig(**config.model_dump() | {"policies": everybody, "output_dir": str(tmp_path / "none")}))


def test_tasks_go_on_where_another_collection_ended_and_begin_again_with_other_seeds(tmp_path: Path) -> None:
    def played(first_task: int, num: int) -> list[tuple[Any, int | None, str]]:
        config = CollectConfig(
            environment={"name": "math", "arguments": {"num_tasks": 10}},
            policy={"name": "expert"},
            first_task=first_task,
            num_episodes=num,
            output_dir=str(tmp_path / f"{first_task}_{num}"),
        )
        return [(e.task, e.seed, e.id) for e in read_episodes(str(collect(config).path))]

    whole = played(0, 10)
    assert played(6, 4) == whole[6:]
    around = played(6, 8)
    assert around[:4] == whole[6:]
    assert [task for task, _, _ in around[4:]] == [task for task, _, _ in whole[:4]]
    assert [seed for _, seed, _ in around] == list(range(6, 14))
    assert len({id for _, _, id in around + whole}) == 14
