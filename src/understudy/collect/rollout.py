"""Play one episode: an environment, a policy for each of its agents, and a record of what happened.

Nothing that goes wrong here is ever the agent's failure. A fault of the environment, of its judge, of a policy or of
its server ends the episode with `Episode.error`; reward and success are then unknown. Only a `ConfigError` is passed
on, because it would end every other episode in the same way.

An episode is a pure function of environment, policies, task, seed and sample: it holds no time and no random id.

An environment gets copies of task and actions, and what it tells is copied, so nothing that it does with them later
changes what is recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

from understudy.environments import Environment, HasScore, Observation, Reward, Score, Step
from understudy.errors import ConfigError, EnvironmentFault, PolicyError
from understudy.policies import Action, Context, ContextLengthExceeded, EpisodeStart, Policy
from understudy.types import JSON, Episode, Message

from .recorder import Recorder, finite_number, truth


@dataclass(frozen=True, slots=True)
class Play:
    """Which episode is to be played.

    Args:
        id: the episode's id; the policies' random choices are drawn from it.
        environment: the environment's name, for the record.
        task: the task; None lets the environment draw one from the seed.
        seed: of the environment.
        sample: which play of this task it is.
        split: of the task, for the record.
        metadata: what else is recorded of the episode.
    """

    id: str
    environment: str | None = None
    task: JSON = None
    seed: int | None = None
    sample: int = 0
    split: str | None = None
    metadata: dict[str, JSON] = field(default_factory=dict)


class _Fault(Exception):
    """The episode cannot go on. The text says whose fault it is, and what it is."""


class _CutShort(Exception):
    """The episode is truncated from outside the environment. The text is the stop reason."""


async def play_episode(
    environment: Environment,
    policies: Mapping[str, Policy],
    play: Play,
    *,
    max_turns: int | None = None,
    timeout_seconds: float | None = None,
) -> Episode:
    """Play one episode and return its record.

    Args:
        environment: is reset first; it stays open.
        policies: one for each agent of the environment.
        play: which episode.
        max_turns: the episode is truncated when an agent that is to act has acted so often.
        timeout_seconds: an episode that takes longer, its judging included, is a fault.

    Raises:
        ConfigError: an agent has no policy, or a policy cannot play in this environment at all.
    """
    rollout = _Rollout(environment, play, max_turns)
    deadline = None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds
    too_long = f"the episode took more than {timeout_seconds} seconds"
    try:
        async with asyncio.timeout_at(deadline):
            await rollout.run(policies)
    except _CutShort as cut:
        rollout.stop_reason = str(cut)
    except _Fault as fault:
        rollout.error = str(fault)
    except TimeoutError:
        rollout.error = too_long
    episode = rollout.episode()
    if isinstance(environment, HasScore) and episode.error is None:
        try:
            async with asyncio.timeout_at(deadline):
                episode = await _judged(environment, episode)
        except TimeoutError:
            episode = _not_judged(episode, too_long)
    return episode


class _Rollout:
    """One episode under way."""

    def __init__(self, environment: Environment, play: Play, max_turns: int | None) -> None:
        self.environment = environment
        self.play = play
        self.max_turns = max_turns
        self.recorders: dict[str, Recorder] = {}
        self.stop_reason: str | None = None
        self.error: str | None = None

    async def run(self, policies: Mapping[str, Policy]) -> None:
        """Play to the end.

        Raises:
            _Fault, _CutShort: it ended before.
        """
        play = self.play
        actors: dict[str, Policy] = {}
        for agent in self.environment.agents:
            if agent not in policies:
                raise ConfigError(f"agent {agent!r} has no policy; the given ones are for {', '.join(policies)}")
            start = EpisodeStart(self.environment, agent, play.task, play.seed, play.sample, play.id)
            actors[agent] = self._actor(policies[agent], start)
            self.recorders[agent] = Recorder(agent, actors[agent].name)
        step = await self._step(self.environment.reset(deepcopy(play.task), seed=play.seed), "reset")
        while not step.is_over:
            if not step.observations:
                raise _Fault("environment: the episode goes on, but no agent is to act")
            self._check_turns(step.observations)
            actions = await self._decide_all(actors, step.observations)
            step = await self._step(self.environment.step(actions), "step")
        self.stop_reason = step.stop_reason or ("terminated" if step.terminated else "truncated")

    def _actor(self, policy: Policy, start: EpisodeStart) -> Policy:
        try:
            return policy.for_episode(start)
        except ConfigError:
            raise
        except Exception as error:
            raise _Fault(f"policy of {start.agent}: {_described(error)}") from error

    async def _step(self, under_way: Awaitable[Step], name: str) -> Step:
        """Await a step of the environment and write it down."""
        try:
            step = await under_way
            self._record(step)
        except ConfigError:
            raise
        except Exception as error:  # an environment is foreign code: whatever it raises is its fault
            raise _Fault(f"environment.{name}: {_described(error)}") from error
        if step.error is not None:
            raise _Fault(f"environment.{name}: {step.error}")
        return step

    def _record(self, step: Step) -> None:
        for agent, observation in step.observations.items():
            self._recorder(agent).observe(observation)
        for agent, rewards in step.rewards.items():
            for reward in [rewards] if isinstance(rewards, Reward) else rewards:
                self._recorder(agent).reward(reward)
        for agent, success in (step.success or {}).items():
            self._recorder(agent).success = truth(success, f"the success of agent {agent!r}")

    def _recorder(self, agent: str) -> Recorder:
        if agent not in self.recorders:
            raise EnvironmentFault(f"agent {agent!r} is none of {', '.join(self.recorders)}")
        return self.recorders[agent]

    def _check_turns(self, agents: Iterable[str]) -> None:
        if self.max_turns is not None and any(self.recorders[agent].num_actions >= self.max_turns for agent in agents):
            raise _CutShort("max_turns")

    async def _decide_all(
        self, actors: Mapping[str, Policy], observations: Mapping[str, Observation]
    ) -> dict[str, Message]:
        """Let all agents that are to act decide at once. All of them finish before a fault of one ends the episode."""
        decisions = [self._decide(actors[agent], agent, observation) for agent, observation in observations.items()]
        results = await asyncio.gather(*decisions, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return {
            agent: result for agent, result in zip(observations, results, strict=True) if isinstance(result, Message)
        }

    async def _decide(self, actor: Policy, agent: str, observation: Observation) -> Message:
        """Let a policy decide, and write it down."""
        recorder = self.recorders[agent]
        context = Context(
            messages=recorder.messages,
            tools=recorder.tools,
            observation=observation,
            turn=recorder.num_actions,
            seed=_turn_seed(self.play, agent, recorder.num_actions),
        )
        try:
            action = _checked(await actor.act(context))
        except ContextLengthExceeded as error:
            raise _CutShort("context_length") from error
        except ConfigError:
            raise
        except Exception as error:  # a policy is foreign code as well
            raise _Fault(f"policy of {agent}: {_described(error)}") from error
        recorder.act(action)
        return deepcopy(action.message)

    def episode(self) -> Episode:
        """Return the record. Its reward is the mean of the agents' that have any; it succeeded when all agents did."""
        is_faulty = self.error is not None
        trajectories = tuple(recorder.trajectory(is_faulty=is_faulty) for recorder in self.recorders.values())
        rewards = [trajectory.reward for trajectory in trajectories if trajectory.reward is not None]
        successes = [trajectory.success for trajectory in trajectories]
        return Episode(
            id=self.play.id,
            trajectories=trajectories,
            environment=self.play.environment,
            task=self.play.task,
            seed=self.play.seed,
            split=self.play.split,
            reward=sum(rewards) / len(rewards) if rewards else None,
            success=None if None in successes or not successes else all(successes),
            stop_reason="error" if is_faulty else self.stop_reason,
            error=self.error,
            metadata=self.play.metadata | {"sample": self.play.sample},
        )


async def _judged(environment: HasScore, episode: Episode) -> Episode:
    """Return the episode with what the judge says; a judge that fails leaves reward and success unknown."""
    try:
        score: Score = await environment.score(episode)
        reward = None if score.reward is None else finite_number(score.reward, "the reward")
        success = truth(score.success, "the success")
    except Exception as error:  # a judge is foreign code, often a model behind a server
        return _not_judged(episode, _described(error))
    return replace(
        episode,
        reward=episode.reward if reward is None else reward,
        success=episode.success if success is None else success,
        metadata=episode.metadata | score.annotations,
    )


def _checked(action: Action) -> Action:
    """Return what a policy gave, if it is an action.

    Raises:
        PolicyError: it is something else.
    """
    if not isinstance(action, Action):
        raise PolicyError(f"act returned {type(action).__name__}, and not an Action")
    for message in (action.message, action.label):
        if message is not None and message.role != "assistant":
            raise PolicyError(f"act returned a message of role {message.role!r}; actions are the assistant's")
    return action


def _not_judged(episode: Episode, reason: str) -> Episode:
    return replace(episode, reward=None, success=None, stop_reason="error", error=f"environment.score: {reason}")


def _turn_seed(play: Play, agent: str, turn: int) -> int:
    text = f"{play.id}/{agent}/{turn}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _described(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
