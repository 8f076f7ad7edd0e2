"""One episode: what is recorded, and whose fault a fault is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from understudy.collect import Play, play_episode
from understudy.collect.recorder import Recorder
from understudy.environments import Observation, Reward, Score, Step
from understudy.errors import ConfigError, EnvironmentFault
from understudy.formats.native import Native
from understudy.policies import Action, Context, ContextLengthExceeded, EpisodeStart, Policy, Usage
from understudy.rendering import Renderer
from understudy.types import Episode, Message, SampledTokens, Tool, ToolCall

TOOL_A, TOOL_B = (
    Tool({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}})
    for name in "ab"
)


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str) -> Message:
    return Message("assistant", text)


class Told:
    """An environment that does what it was told, step by step; an exception in the list is raised."""

    def __init__(self, *steps: Any, agents: tuple[str, ...] = ("agent",)) -> None:
        self.agents = agents
        self.steps = list(steps)
        self.taken: list[Mapping[str, Message]] = []
        self.resets: list[tuple[Any, Any]] = []

    async def reset(self, task: Any = None, *, seed: int | None = None) -> Step:
        self.resets.append((task, seed))
        return self._next()

    async def step(self, actions: Mapping[str, Message]) -> Step:
        self.taken.append(actions)
        return self._next()

    async def close(self) -> None:
        pass

    def _next(self) -> Step:
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


class Numbered(Policy):
    """Says its own name and the number of its turn, and remembers what it saw."""

    def __init__(self, name: str = "numbered") -> None:
        self.name = name
        self.seen: list[Context] = []

    async def act(self, context: Context) -> Action:
        self.seen.append(context)
        return Action(says(f"{self.name} {context.turn}"))


def asks(text: str = "?", **fields: Any) -> Step:
    return Step(observations={"agent": Observation((user(text),), **fields)})


END = Step(terminated=True)


def play(environment: Any, policy: Any = None, play_: Play | None = None, **options: Any) -> Episode:
    policies = policy if isinstance(policy, dict) else {"agent": policy or Numbered()}
    return asyncio.run(play_episode(environment, policies, play_ or Play(id="e"), **options))


def test_a_plain_episode_is_a_chain_of_turns() -> None:
    step = Step(
        observations={"agent": Observation((user("two"),))},
        rewards={"agent": Reward(0.5, {"speed": 0.2, "style": 0.3})},
    )
    end = Step(
        observations={"agent": Observation((user("bye"),))},
        rewards={"agent": Reward(1.0)},
        terminated=True,
        success={"agent": True},
        stop_reason="solved",
    )
    first = Step(observations={"agent": Observation((Message("system", "rules"), user("one")), tools=(TOOL_A,))})
    environment = Told(first, step, end)
    which = Play(id="e7", environment="told", task={"n": 1}, seed=4, sample=2, split="test", metadata={"task_index": 9})
    episode = play(environment, Numbered("p"), which)
    (trajectory,) = episode.trajectories
    assert environment.resets == [({"n": 1}, 4)]
    assert [turn.parent for turn in trajectory.turns] == [None, 0, 1]
    assert trajectory.messages() == [
        Message("system", "rules"), user("one"), says("p 0"), user("two"), says("p 1"), user("bye"),
    ]  # fmt: skip
    assert trajectory.tools() == (TOOL_A,)
    assert [turn.reward for turn in trajectory.turns] == [0.5, 1.0, None]
    assert trajectory.turns[0].annotations == {"reward_components": {"speed": 0.2, "style": 0.3}}
    assert trajectory.turns[2].action is None
    assert (trajectory.reward, trajectory.success, trajectory.policy, trajectory.agent) == (1.5, True, "p", "agent")
    assert (episode.id, episode.environment, episode.task, episode.seed, episode.split) == (
        "e7", "told", {"n": 1}, 4, "test",
    )  # fmt: skip
    assert (episode.reward, episode.success, episode.stop_reason, episode.error) == (1.5, True, "solved", None)
    assert episode.metadata == {"task_index": 9, "sample": 2}
    assert episode.created_at is None


def test_the_policy_sees_exactly_what_is_recorded() -> None:
    policy = Numbered()
    steps = [asks("a"), asks("b"), asks("c", mode="replace"), asks("d"), asks("e", tools=(TOOL_B,)), asks("f"), END]
    trajectory = play(Told(*steps), policy).trajectories[0]
    for index, context in enumerate(policy.seen):
        assert list(context.messages) == trajectory.messages(index)[:-1]
        assert context.tools == trajectory.tools(index)


class Careless:
    """An environment that takes what it is given apart, and tells the same object again with another content."""

    agents = ("agent",)

    def __init__(self) -> None:
        self.info: dict[str, Any] = {"seen": []}

    async def reset(self, task: Any = None, *, seed: int | None = None) -> Step:
        self.goal = task.pop("goal")
        return asks(info=self.info)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        self.info["seen"].append(actions["agent"].tool_calls[0].parsed_arguments().pop("to"))
        return END if self.info["seen"][-1] == self.goal else asks(info=self.info)

    async def close(self) -> None:
        pass


class Going(Policy):
    async def act(self, context: Context) -> Action:
        return Action(Message("assistant", tool_calls=(ToolCall("go", {"to": context.turn}, "call"),)))


def test_nothing_that_an_environment_does_later_changes_what_is_recorded() -> None:
    task = {"goal": 1}
    episode = play(Careless(), Going(), Play(id="e", task=task))
    (trajectory,) = episode.trajectories
    assert episode.error is None
    assert (episode.task, task) == ({"goal": 1}, {"goal": 1})
    assert [turn.action.tool_calls[0].arguments for turn in trajectory.turns if turn.action] == [{"to": 0}, {"to": 1}]
    assert [turn.annotations.get("info") for turn in trajectory.turns] == [{"seen": []}, {"seen": [0]}]


def test_a_replacing_observation_and_new_tools_each_start_a_new_root() -> None:
    steps = [
        asks("a"),
        asks("b", mode="replace"),
        asks("c"),
        asks("d", tools=(TOOL_B,)),
        asks("e", tools=(TOOL_B,)),
        END,
    ]
    trajectory = play(Told(*steps)).trajectories[0]
    assert [turn.parent for turn in trajectory.turns] == [None, None, 1, None, 3]
    assert trajectory.messages(1) == [user("b"), says("numbered 1")]
    assert trajectory.messages(3) == [
        user("b"), says("numbered 1"), user("c"), says("numbered 2"), user("d"), says("numbered 3"),
    ]  # fmt: skip
    assert [trajectory.tools(index) for index in range(5)] == [(), (), (), (TOOL_B,), (TOOL_B,)]


def test_what_the_policy_tells_about_its_turn_is_recorded() -> None:
    class Telling(Policy):
        name = "telling"

        async def act(self, context: Context) -> Action:
            sampled = SampledTokens((1,), (2, 3), (-0.5, -0.1))
            return Action(says("x"), sampled, Usage(1, 2), {"finish_reason": "stop"})

    observed = asks("a", info={"hint": 1}, legal_actions=("x", "y"))
    (turn,) = play(Told(observed, END), Telling()).trajectories[0].turns
    assert turn.sampled == SampledTokens((1,), (2, 3), (-0.5, -0.1))
    assert turn.annotations == {
        "info": {"hint": 1},
        "legal_actions": ["x", "y"],
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }


def test_a_late_reward_goes_to_the_turn_that_it_names() -> None:
    late = Step(
        rewards={"agent": [Reward(1.0, turn=0), Reward(2.0, turn=2), Reward(4.0), Reward(8.0, turn=0)]}, terminated=True
    )
    trajectory = play(Told(asks(), asks(mode="replace"), asks(), late)).trajectories[0]
    assert [turn.reward for turn in trajectory.turns] == [9.0, None, 6.0]
    assert trajectory.reward == 15.0


def test_a_reward_for_an_action_that_was_not_taken_is_the_environments_fault() -> None:
    for turn in (1, -1):
        episode = play(Told(asks(), Step(rewards={"agent": Reward(1.0, turn=turn)}, terminated=True)))
        assert f"names action {turn} of agent 'agent', who has taken 1" in (episode.error or "")


def test_success_is_what_the_environment_said_last_and_never_guessed() -> None:
    def outcome(*success: Any) -> bool | None:
        steps = [Step(observations={"agent": Observation((user("?"),))}, success=one) for one in success[:-1]]
        end = Step(terminated=True, rewards={"agent": Reward(1.0)}, success=success[-1])
        return play(Told(*steps, end)).success

    assert outcome(None, None) is None
    assert outcome({"agent": False}, {"agent": True}) is True
    assert outcome({"agent": False}, None) is False
    assert outcome({"agent": True}, {"agent": None}) is None


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([ValueError("boom")], "environment.reset: ValueError: boom"),
        ([asks(), ValueError("boom")], "environment.step: ValueError: boom"),
        ([asks(), EnvironmentFault("lost")], "environment.step: EnvironmentFault: lost"),
        ([asks(), Step(error="the judge is gone", success={"agent": False})], "environment.step: the judge is gone"),
        ([Step()], "environment: the episode goes on, but no agent is to act"),
        (
            [Step(observations={"stranger": Observation()})],
            "environment.reset: EnvironmentFault: agent 'stranger' is none of agent",
        ),
    ],
)
def test_a_fault_of_the_environment_is_an_error_and_leaves_success_unknown(steps: list[Any], error: str) -> None:
    episode = play(Told(*steps))
    assert (episode.error, episode.success, episode.reward, episode.stop_reason) == (error, None, None, "error")
    assert episode.trajectories[0].success is None


NAN = float("nan")


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (Step(terminated=True, rewards={"agent": Reward(NAN)}), "step: .* a reward of agent 'agent' is nan"),
        (Step(terminated=True, rewards={"agent": Reward("much")}), "a reward of agent 'agent' is 'much', which is no"),
        (
            Step(terminated=True, rewards={"agent": Reward(1, {"fit": NAN})}),
            "reward component 'fit' of agent 'agent' is",
        ),
        (Step(terminated=True, success={"agent": "yes"}), "the success of agent 'agent' is 'yes', which is neither"),
    ],
)
def test_an_outcome_that_is_none_is_a_fault_of_its_episode_and_of_no_other(end: Step, error: str) -> None:
    episode = play(Told(asks(), end))
    assert re.search(error, episode.error or "")
    assert (episode.reward, episode.success) == (None, None)


def test_an_outcome_may_be_numpys() -> None:
    rewards = {"agent": Reward(np.float32(0.5), {"fit": np.int64(2)})}
    episode = play(Told(asks(), Step(terminated=True, rewards=rewards, success={"agent": np.bool_(True)})))
    assert (episode.reward, episode.success, type(episode.reward)) == (0.5, True, float)
    assert Native().decode(json.loads(json.dumps(Native().write_row(episode))), id="x")[0] == episode


def test_what_happened_before_a_fault_is_kept() -> None:
    rewarded = Step(observations={"agent": Observation((user("b"),))}, rewards={"agent": Reward(1.0)})
    trajectory = play(Told(asks("a"), rewarded, OSError("gone"))).trajectories[0]
    assert trajectory.messages() == [user("a"), says("numbered 0"), user("b"), says("numbered 1")]
    assert [turn.reward for turn in trajectory.turns] == [1.0, None]
    assert trajectory.reward is None


class Failing(Policy):
    name = "failing"

    def __init__(self, error: Exception, at_start: bool = False) -> None:
        self.error = error
        self.at_start = at_start

    def for_episode(self, start: EpisodeStart) -> Policy:
        if self.at_start:
            raise self.error
        return self

    async def act(self, context: Context) -> Action:
        raise self.error


def test_a_fault_of_the_policy_is_an_error() -> None:
    for at_start in (False, True):
        episode = play(Told(asks(), END), Failing(ValueError("boom"), at_start))
        assert (episode.error, episode.success) == ("policy of agent: ValueError: boom", None)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (says("hi"), "act returned Message, and not an Action"),
        (None, "act returned NoneType, and not an Action"),
        (Action(user("hi")), "act returned a message of role 'user'; actions are the assistant's"),
    ],
)
def test_what_is_no_action_is_a_fault_of_the_policy(given: Any, error: str) -> None:
    class Giving(Policy):
        async def act(self, context: Context) -> Action:
            return given  # type: ignore[no-any-return]

    assert play(Told(asks(), END), Giving()).error == f"policy of agent: PolicyError: {error}"


def test_a_config_error_is_passed_on_because_it_would_end_every_episode() -> None:
    for at_start in (False, True):
        with pytest.raises(ConfigError, match="no such model"):
            play(Told(asks(), END), Failing(ConfigError("no such model"), at_start))
    with pytest.raises(ConfigError, match="agent 'b' has no policy"):
        play(Told(asks(), agents=("agent", "b")))
    with pytest.raises(ConfigError, match="bad task"):
        play(Told(ConfigError("bad task")))


def test_a_full_context_cuts_the_episode_short_without_blame() -> None:
    first = Step(observations={"agent": Observation((user("?"),))}, success={"agent": False})
    episode = play(Told(first, END), Failing(ContextLengthExceeded("too long")))
    assert (episode.error, episode.stop_reason, episode.success) == (None, "context_length", False)


def test_max_turns_counts_actions_and_keeps_the_last_observation() -> None:
    episode = play(Told(*[asks(str(n)) for n in range(9)]), max_turns=3)
    assert (episode.stop_reason, episode.num_actions()) == ("max_turns", 3)
    assert episode.trajectories[0].messages()[-1] == user("3")


def test_an_episode_that_ends_by_itself_at_the_limit_is_not_cut_short() -> None:
    assert play(Told(asks(), asks(), END), max_turns=2).stop_reason == "terminated"


def test_an_episode_that_takes_too_long_is_a_fault() -> None:
    class Slow(Policy):
        async def act(self, context: Context) -> Action:
            await asyncio.sleep(10)
            raise AssertionError

    episode = play(Told(asks(), END), Slow(), timeout_seconds=0.05)
    assert (episode.error, episode.success) == ("the episode took more than 0.05 seconds", None)
    assert episode.trajectories[0].messages() == [user("?")]


class Judged(Told):
    def __init__(self, score: Any, *steps: Any) -> None:
        super().__init__(*steps)
        self._score = score

    async def score(self, episode: Episode) -> Score:
        if isinstance(self._score, Exception):
            raise self._score
        assert episode.num_actions() == 1
        return self._score


def test_a_judge_may_have_the_last_word() -> None:
    end = Step(terminated=True, rewards={"agent": Reward(1.0)}, success={"agent": True})
    episode = play(Judged(Score(0.25, False, {"why": "rude"}), asks(), end))
    assert (episode.reward, episode.success, episode.metadata["why"]) == (0.25, False, "rude")
    assert (episode.trajectories[0].reward, episode.trajectories[0].success) == (1.0, True)
    assert play(Judged(Score(), asks(), end)).success is True


def test_a_judge_that_fails_is_no_failure_of_the_agent() -> None:
    end = Step(terminated=True, success={"agent": False})
    episode = play(Judged(TimeoutError("no judge"), asks(), end))
    assert (episode.error, episode.success) == ("environment.score: TimeoutError: no judge", None)
    for score in (Score(NAN), Score(1.0, "yes")):
        episode = play(Judged(score, asks(), end))
        assert (episode.error or "").startswith("environment.score: EnvironmentFault: the ")
        assert (episode.reward, episode.success) == (None, None)


def test_a_judge_that_takes_too_long_is_a_fault_too() -> None:
    class Slow(Told):
        async def score(self, episode: Episode) -> Score:
            await asyncio.sleep(60)
            return Score(1.0, True)

    environment = Slow(asks(), Step(terminated=True, success={"agent": False}))
    episode = asyncio.run(play_episode(environment, {"agent": Numbered()}, Play("e"), timeout_seconds=0.05))
    assert episode.error == "environment.score: the episode took more than 0.05 seconds"
    assert (episode.success, episode.stop_reason) == (None, "error")


def two(a: str | None, b: str | None, **fields: Any) -> Step:
    given = {agent: Observation((user(text),)) for agent, text in (("a", a), ("b", b)) if text is not None}
    return Step(observations=given, **fields)


def test_agents_take_turns_and_act_at_once_each_with_its_own_trajectory() -> None:
    rewards = {"a": Reward(1.0), "b": Reward(-1.0)}
    end = Step(terminated=True, rewards=rewards, success={"a": True, "b": False})
    environment = Told(two("a0", None), two(None, "b0"), two("a1", "b1"), end, agents=("a", "b"))
    episode = play(environment, {"a": Numbered("p"), "b": Numbered("q")})
    assert environment.taken == [{"a": says("p 0")}, {"b": says("q 0")}, {"a": says("p 1"), "b": says("q 1")}]
    a, b = episode.trajectories
    assert (a.agent, a.policy, a.reward, a.success) == ("a", "p", 1.0, True)
    assert (b.agent, b.policy, b.reward, b.success) == ("b", "q", -1.0, False)
    assert a.messages() == [user("a0"), says("p 0"), user("a1"), says("p 1")]
    assert (episode.reward, episode.success) == (0.0, False)


def test_one_agents_fault_waits_for_the_others_to_decide() -> None:
    slow = Numbered("slow")

    class Waiting(Numbered):
        async def act(self, context: Context) -> Action:
            await asyncio.sleep(0.02)
            return await slow.act(context)

    episode = play(Told(two("a0", "b0"), END, agents=("a", "b")), {"a": Failing(ValueError("boom")), "b": Waiting()})
    assert episode.error == "policy of a: ValueError: boom"
    assert len(slow.seen) == 1
    assert episode.trajectories[1].messages() == [user("b0"), says("slow 0")]


def test_a_reward_before_the_first_action_counts_for_the_whole() -> None:
    recorder = Recorder("b", "p")
    recorder.reward(Reward(-1.0))
    assert recorder.trajectory(is_faulty=False).reward == -1.0


def test_every_turn_of_every_sample_has_a_seed_of_its_own() -> None:
    seeds = set()
    for sample in range(3):
        policy = Numbered()
        play(Told(asks(), asks(), END), policy, Play(id=f"e{sample}", sample=sample))
        seeds |= {context.seed for context in policy.seen}
    assert len(seeds) == 6


def test_rendering_takes_what_is_recorded(test_data: Any) -> None:
    from understudy.rendering import load_tokenizer

    episode = play(Told(asks("a", tools=(TOOL_A,)), asks("b"), asks("c", mode="replace"), END))
    rendered = Renderer(load_tokenizer(test_data / "tokenizers" / "qwen3")).render(episode.trajectories[0])
    assert len(rendered.turns) == 3
