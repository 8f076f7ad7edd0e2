"""PettingZoo's environments (https://pettingzoo.farama.org) whose actions are a few names: board games and the like.

Agents act one after the other, as the environment selects them. One that has ended takes no more turns.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.environments.base import Observation, Reward, Step
from understudy.environments.frame import system, user
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .actions import action_named, action_names, instructions_for
from .foreign import ForeignEnvironment, in_thread, needed, to_json


class PettingZooEnvironment(ForeignEnvironment):
    """Several agents in an environment of PettingZoo's AEC interface.

    Args:
        environment: the module that makes it with ``env(…)``, such as ``pettingzoo.classic.tictactoe_v3``.
        arguments: of its ``env``.
        actions: names of the actions 0, 1, …; None for the numbers.
        instructions: what each agent is told at first; None for a line that names the actions.
        success_reward: an agent succeeds when its rewards add up to this much: in most games 1, to have won. Without it
            success is unknown.
        num_tasks, task_seed: tasks are seeds; see `ForeignEnvironment`.
        max_steps: the episode is truncated after so many actions of all agents.

    Raises:
        ConfigError: the module cannot be imported or makes no environment, or its actions cannot be written.
        MissingDependency: pettingzoo is not installed.
    """

    def __init__(
        self,
        *,
        environment: str,
        arguments: Mapping[str, Any] | None = None,
        actions: Sequence[str] | None = None,
        instructions: str | None = None,
        success_reward: float | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(tasks=None, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self._zoo = _made(environment, arguments or {})
        self.agents: tuple[str, ...] = tuple(self._zoo.possible_agents)
        self._names = {
            agent: action_names(self._zoo.action_space(agent), f"{environment} ({agent})", actions)
            for agent in self.agents
        }
        self._instructions = instructions
        self._success_reward = success_reward
        self._totals: dict[str, float] = {}
        self._told: set[str] = set()

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode."""
        await in_thread(self._zoo.reset, seed=self.seed_of(task, seed))
        self._num_steps, self._totals, self._told = 0, dict.fromkeys(self.agents, 0.0), set()
        return self._step({})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the selected agent's action; what names no legal one is answered with those that there are."""
        self._count_step()
        agent = self._zoo.agent_selection
        names, text = self._names[agent], actions[agent].text()
        action: Any = text if names is None else action_named(text, names, self._zoo.action_space(agent))
        legal = self._legal(agent)
        if names is not None and (
            action is None or names[action - int(self._zoo.action_space(agent).start)] not in legal
        ):
            reminder = f"That is no action that you can take. Write one of: {', '.join(legal)}."
            return self._step({}, Observation((user(reminder),), legal_actions=legal))
        await in_thread(self._zoo.step, action)
        rewards = {one: Reward(float(value)) for one, value in self._zoo.rewards.items()}
        for one, reward in rewards.items():
            self._totals[one] += reward.value
        while self._zoo.agents and self._is_out(self._zoo.agent_selection):
            self._zoo.step(None)
        return self._step(rewards)

    async def close(self) -> None:
        """Close the environment."""
        self._num_steps = None
        await in_thread(self._zoo.close)

    def _is_out(self, agent: str) -> bool:
        return bool(self._zoo.terminations[agent] or self._zoo.truncations[agent])

    def _step(self, rewards: Mapping[str, Reward], observation: Observation | None = None) -> Step:
        success = None
        if self._success_reward is not None:
            success = {agent: total >= self._success_reward for agent, total in self._totals.items()}
        is_over = not self._zoo.agents
        is_cut = self._is_cut(is_over)
        if is_over or is_cut:
            self._num_steps = None
            reason = "max_steps" if is_cut else None
            return Step(rewards=rewards, terminated=is_over, truncated=is_cut, success=success, stop_reason=reason)
        agent = self._zoo.agent_selection
        return Step(observations={agent: observation or self._observation(agent)}, rewards=rewards, success=success)

    def _observation(self, agent: str) -> Observation:
        given = self._zoo.observe(agent)
        shown = to_json(given["observation"] if isinstance(given, Mapping) and "observation" in given else given)
        messages = [user(shown if isinstance(shown, str) else str(shown))]
        if agent not in self._told:
            self._told.add(agent)
            messages.insert(0, system(self._instructions or instructions_for(self._names[agent])))
        return Observation(tuple(messages), legal_actions=self._legal(agent) or None, info={"observation": shown})

    def _legal(self, agent: str) -> tuple[str, ...]:
        """Return the names of what an agent may do now; none where an action is any text."""
        names = self._names[agent] or ()
        given, info = self._zoo.observe(agent), self._zoo.infos.get(agent) or {}
        mask = given.get("action_mask") if isinstance(given, Mapping) else info.get("action_mask")
        return names if mask is None else tuple(name for name, may in zip(names, mask, strict=True) if may)


def _made(environment: str, arguments: Mapping[str, Any]) -> Any:
    needed("pettingzoo", "pettingzoo")
    try:
        return importlib.import_module(environment).env(**arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"pettingzoo cannot make {environment!r}: {error}") from error
