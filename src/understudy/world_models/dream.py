"""The dream: a world model in the place of an environment.

Tasks, tools and the first observation are borrowed from the environment. From then on every observation is written by
the world model, and the environment is asked nothing but to read the text. Nobody knows what an action would really
have come to, so there are no rewards, and success stays unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from understudy import registry
from understudy.environments import Environment, HasTasks, Observation, Step
from understudy.errors import ConfigError, EnvironmentFault
from understudy.policies import ContextLengthExceeded
from understudy.policies.nested import component_of
from understudy.types import JSON, Message, Tool

from .ending import CONTEXT_LENGTH, MAX_STEPS, Ending
from .world_model import WorldModel, check_appends


@dataclass(slots=True)
class _Play:
    """A dream under way."""

    task: JSON
    seed: int
    messages: list[Message]
    tools: tuple[Tool, ...]
    num_steps: int = 0


class Dream:
    """Plays one agent's part of an environment in what a world model imagines.

    A dream ends where the environment reads an end off the conversation, where a pattern of `ends` is found in its
    newest message, and after `max_steps` actions: then it is truncated. It has tasks where the environment has.

    Args:
        environment: a name, or ``{name: …, arguments: {…}}``.
        world_model: a model's name, or the keys of `WorldModelSettings`.
        agent: whose part is played, where the environment has several agents. The others are imagined too.
        ends: stop reason -> regular expression, searched in ``role: text`` of the newest message.
        max_steps: most actions.

    Raises:
        ConfigError: an argument does not fit, or the agent is none of the environment's.
    """

    def __init__(
        self,
        environment: str | Mapping[str, Any],
        world_model: str | Mapping[str, Any],
        *,
        agent: str | None = None,
        ends: Mapping[str, str] | None = None,
        max_steps: int = 30,
    ) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps}; a dream has one action at least")
        self._environment = _borrowed(environment)
        self._world_model = WorldModel.of(world_model)
        self._ending = Ending(self._environment, ends or {})
        self._max_steps = max_steps
        self._agent = _chosen(agent, self._environment.agents)
        self._play: _Play | None = None
        if isinstance(self._environment, HasTasks):  # callers ask for it with isinstance
            self.tasks = self._environment.tasks

    @property
    def agents(self) -> tuple[str, ...]:
        """The one agent that dreams."""
        return (self._agent,)

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start with what the environment shows the agent first.

        Raises:
            ConfigError: the environment rebuilds the agent's prompt each turn, which no world model goes on with.
            EnvironmentFault: it shows the agent nothing before others have acted.
        """
        self._play = None
        step = await self._environment.reset(task, seed=seed)
        first = step.observations.get(self._agent)
        if step.is_over:
            seen = {self._agent: first} if first is not None else {}
            return replace(step, observations=seen, rewards={}, success=None)
        if first is None:
            raise EnvironmentFault(
                f"agent {self._agent!r} observes nothing before others have acted, so a dream cannot begin with it; "
                f"at the beginning {', '.join(step.observations)} can act"
            )
        check_appends(first)
        self._play = _Play(task, seed or 0, list(first.messages), first.tools or ())
        return Step({self._agent: Observation(first.messages, tools=first.tools)})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Imagine what the agent observes after its action."""
        play = self._play
        if play is None:
            raise EnvironmentFault("no dream is under way: reset it first")
        play.messages.append(actions[self._agent])
        play.num_steps += 1
        if (reason := self._ending.read(play.task, play.messages).stop_reason) is not None:
            return self._over(reason)
        try:
            imagined = await self._world_model.observe(play.messages, play.tools, _step_seed(play))
        except ContextLengthExceeded:
            return self._over(CONTEXT_LENGTH, truncated=True)
        play.messages += imagined.messages
        info = {"logprob": imagined.logprob, "is_whole": imagined.is_whole}
        observations = {self._agent: Observation(imagined.messages, info=info)}
        if (reason := self._ending.read(play.task, play.messages).stop_reason) is not None:
            return self._over(reason, observations)
        if play.num_steps >= self._max_steps:
            return self._over(MAX_STEPS, observations, truncated=True)
        return Step(observations)

    async def close(self) -> None:
        """End the dream under way, and let go of the environment."""
        self._play = None
        await self._environment.close()

    def _over(
        self, reason: str, observations: Mapping[str, Observation] | None = None, *, truncated: bool = False
    ) -> Step:
        self._play = None
        return Step(observations or {}, terminated=not truncated, truncated=truncated, stop_reason=reason)


def _borrowed(given: str | Mapping[str, Any]) -> Environment:
    """Make the environment that a dream borrows from.

    Raises:
        ConfigError: it cannot be made.
    """
    component = component_of("environment", given)
    environment: Environment = registry.create("environments", component.name, component.arguments)
    return environment


def _chosen(agent: str | None, agents: tuple[str, ...]) -> str:
    if agent is None and len(agents) == 1:
        return agents[0]
    if agent is None or agent not in agents:
        problem = "is not given" if agent is None else f"{agent!r} is none of them"
        raise ConfigError(f"agent: the environment has {', '.join(agents)}, and {problem}; a dream is of one agent")
    return agent


def _step_seed(play: _Play) -> int:
    return int.from_bytes(hashlib.sha256(f"{play.seed}/{play.num_steps}".encode()).digest()[:8], "big") >> 1
