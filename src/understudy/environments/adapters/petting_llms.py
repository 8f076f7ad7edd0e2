"""Environments and agents that are written for PettingLLMs.

The environment holds the state that its agents share. In each of its turns all agents act, one after the other: each
writes its whole prompt (`update_from_env`), takes the model's reply (`update_from_model`) and acts (`step`; where there
is none, the environment's). Then rewards are given. Nothing of PettingLLMs is imported: what has these methods and
attributes is one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from understudy.environments.base import Observation, Reward, Score, Step
from understudy.environments.frame import system, user
from understudy.errors import ConfigError, EnvironmentFault, did_you_mean
from understudy.types import JSON, Episode, Message

from .foreign import ForeignEnvironment, call_with, in_thread, load_class, no_episode, seeded


@dataclass(slots=True)
class _Play:
    """An episode under way. `place` counts the places of the turn order that were gone through in all."""

    environment: Any
    agents: dict[str, Any]
    place: int = 0
    acting: str | None = None
    acted: list[str] = field(default_factory=list)


class PettingLLMsEnvironment(ForeignEnvironment):
    """Several agents, each with a prompt that it writes anew in each of its turns.

    An agent's reward is its `agent_reward` at the end of each turn of the environment (after `calculate_reward`, where
    it has that), its success its `success`; the episode's success is the environment's `success`.

    Args:
        environment: its class, its batch's class, or a function that makes one: ``package.module:Class`` or
            ``path/to/file.py:Class``. It is given what it takes of ``env_idx``, ``rollout_idx``, ``max_turns``,
            ``config``, ``env_idx_list``, ``env_indices``, ``rollout_idx_list``, ``samples`` and ``mode``.
        agents: the agents' classes by their names.
        turn_order: who acts in a turn, in this order; None for all as they stand in `agents`.
        max_turns: so many turns of the environment end an episode.
        config: what environments find in their `config`, by attributes or keys.
        tasks: a list or file of objects, whose values are set in the environment's `state`, or of numbers, which are
            ``env_idx`` and ``env_indices``; None for environments that draw their own task from the seed.
        num_tasks, task_seed: where tasks are seeds; see `ForeignEnvironment`.

    Raises:
        ConfigError: a class cannot be imported, or `turn_order` names an agent that there is none of.
    """

    def __init__(
        self,
        *,
        environment: str,
        agents: Mapping[str, str],
        turn_order: Sequence[str] | None = None,
        max_turns: int = 3,
        config: Mapping[str, Any] | None = None,
        tasks: Sequence[JSON] | str | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        super().__init__(tasks=tasks, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_turns)
        self._environment_class = load_class(environment, "environment")
        self._agent_classes = {name: load_class(one, f"agents.{name}") for name, one in agents.items()}
        self._order = tuple(turn_order or agents)
        self._config = None if config is None else _Settings(config)
        self._play: _Play | None = None
        self.agents = tuple(agents)
        for name in self._order:
            if name not in agents:
                raise ConfigError(f"turn_order: there is no agent {name!r}.{did_you_mean(name, agents)} Known: "
                                  f"{', '.join(agents)}")  # fmt: skip
        if missing := [name for name in agents if name not in self._order]:
            raise ConfigError(f"turn_order: agent {missing[0]!r} never acts; name all of {', '.join(agents)}")

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Make a new environment with its agents, and let the first agent write its prompt."""
        number = self.seed_of(task, seed)
        play: _Play = await in_thread(seeded, number, partial(self._made, task, number))
        self._play = play
        return await self._next(play)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Give the model's reply to the agent whose turn it is, and let it act."""
        play = self._play
        if play is None or play.acting is None:
            raise no_episode()
        name = play.acting
        agent = play.agents[name]
        await _called(agent.update_from_model, actions[name].text())
        if hasattr(agent, "step"):
            await _called(agent.step, play.environment)
        else:
            await _called(play.environment.step, name, agent.current_action)
        play.acted.append(name)
        return await self._next(play)

    async def score(self, episode: Episode) -> Score:
        """Let the environment say whether the episode succeeded, whatever its agents say of themselves."""
        return Score(success=None if self._play is None else _truth(self._play.environment, "success"))

    async def close(self) -> None:
        """Let go of the episode under way."""
        self._play = None

    def _made(self, task: JSON, seed: int) -> _Play:
        index = task if isinstance(task, int) else seed
        facts = {"env_idx": index, "rollout_idx": 0, "max_turns": self.max_steps, "config": self._config}
        of_a_batch = {"env_idx_list": [0], "env_indices": [index], "rollout_idx_list": [0], "samples": 1}
        environment = call_with(self._environment_class, facts | of_a_batch | {"mode": "train"})
        if hasattr(environment, "env_list"):
            environment = environment.env_list[0]
        elif self._given is None and hasattr(environment, "reset"):
            environment.reset()
        if isinstance(task, Mapping) and self._given is not None:
            _set_state(environment, task)
        facts = {"env_idx": index, "rollout_idx": 0, "agent_sample_idx": 0}
        return _Play(environment, {name: call_with(one, facts) for name, one in self._agent_classes.items()})

    async def _next(self, play: _Play) -> Step:
        """Return the prompt of the agent that acts next, or the end."""
        environment = play.environment
        rewards: dict[str, Reward] = {}
        play.acting = None
        while play.acting is None:
            turn, place = divmod(play.place, len(self._order))
            if place == 0 and play.place:
                rewards |= await self._rewards(play)
                is_done = bool(getattr(environment, "done", False))
                if is_done or turn >= self.max_steps:
                    reason = getattr(environment, "termination_reason", None) or "done"
                    stop_reason = str(reason) if is_done else "max_turns"
                    return Step(
                        rewards=rewards,
                        terminated=is_done,
                        truncated=not is_done,
                        success=self._successes(play),
                        stop_reason=stop_reason,
                    )
            name = self._order[place]
            play.place += 1
            await _called(partial(_write_prompt, play.agents[name]), turn, environment)
            if not getattr(play.agents[name], "skip_current_turn", False):
                play.acting = name
        observation = Observation(_prompt(play.agents[play.acting], play.acting), "replace")
        return Step(observations={play.acting: observation}, rewards=rewards, success=self._successes(play))

    async def _rewards(self, play: _Play) -> dict[str, Reward]:
        """Return the rewards of those who acted in the turn that is over."""
        rewards = {}
        for name in dict.fromkeys(play.acted):
            agent = play.agents[name]
            if hasattr(agent, "calculate_reward"):
                await _called(agent.calculate_reward, play.environment)
            if getattr(agent, "agent_reward", None) is not None:
                rewards[name] = Reward(float(agent.agent_reward))
        play.acted = []
        return rewards

    def _successes(self, play: _Play) -> dict[str, bool | None]:
        return {name: _truth(agent, "success") for name, agent in play.agents.items()}


class _Settings(dict[str, Any]):
    """A config whose values are reached by keys or attributes."""

    def __getattr__(self, key: str) -> Any:
        try:
            value = self[key]
        except KeyError:
            raise AttributeError(f"the config has no {key!r}") from None
        return _Settings(value) if isinstance(value, Mapping) else value


async def _called(function: Any, *arguments: Any) -> None:
    """Call a method of theirs in a thread, and wait for it where it is asynchronous."""
    result = await in_thread(function, *arguments)
    if inspect.isawaitable(result):
        await result


def _write_prompt(agent: Any, turn: int, environment: Any) -> Any:
    """Let an agent write its prompt; older ones are not told the turn."""
    takes_turn = "turn_idx" in inspect.signature(agent.update_from_env).parameters
    return agent.update_from_env(turn, environment) if takes_turn else agent.update_from_env(environment)


def _prompt(agent: Any, name: str) -> tuple[Message, ...]:
    prompt = agent.current_prompt
    parts = prompt if isinstance(prompt, Mapping) else {"text": prompt}
    if parts.get("image") is not None:
        raise EnvironmentFault(f"agent {name!r} shows an image, and prompts are text here")
    if not isinstance(parts.get("text"), str):
        raise EnvironmentFault(f"agent {name!r} wrote no prompt: current_prompt is {prompt!r:.100}")
    first = (system(parts["system"]),) if isinstance(parts.get("system"), str) else ()
    return (*first, user(parts["text"]))


def _set_state(environment: Any, task: Mapping[str, JSON]) -> None:
    state = environment.state
    for key, value in task.items():
        if isinstance(state, dict):
            state[key] = value
        elif hasattr(state, key):
            setattr(state, key, value)
        else:
            raise EnvironmentFault(f"the state {type(state).__name__} has no {key!r} that a task could set")


def _truth(holder: Any, name: str) -> bool | None:
    value = getattr(holder, name, None)
    return None if value is None else bool(value)
