"""Environments of gymnasium (https://gymnasium.farama.org) whose actions are a few names, or texts.

The agent reads the environment's own drawing in text where it has one, and writes the name of an action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.environments.base import Observation, Reward, Step
from understudy.environments.frame import system, user
from understudy.environments.tool_environment import AGENT
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .actions import action_named, action_names, instructions_for
from .foreign import ForeignEnvironment, in_thread, needed, to_json

NAMES: dict[str, tuple[str, ...]] = {
    "FrozenLake": ("left", "down", "right", "up"),
    "FrozenLake8x8": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "CliffWalkingSlippery": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pickup", "dropoff"),
    "Blackjack": ("stick", "hit"),
}
"""What the actions of gymnasium's toy texts are called, by the environment's id without its version."""

_HIGHLIGHTED = re.compile(r"(?:\x1b\[[\d;]*m)+(.*?)(?:\x1b\[0m)+", re.S)
"""What a drawing marks by colour, such as where the agent is; it is put in brackets."""


class GymnasiumEnvironment(ForeignEnvironment):
    """One agent in an environment of gymnasium.

    Args:
        id: as `gymnasium.make` takes it, ``package:Name-v0`` included.
        arguments: further arguments of `gymnasium.make`.
        actions: names of the actions 0, 1, …; None for those of toy texts, else the numbers.
        instructions: what the agent is told at first; None for a line that names the actions.
        success_reward: an episode is a success when its rewards add up to this much. Without it success is what
            ``info["success"]`` or ``info["is_success"]`` says, else unknown.
        num_tasks, task_seed: tasks are seeds; see `ForeignEnvironment`.
        max_steps: the episode is truncated after so many actions, those that are none included.

    Raises:
        ConfigError: there is no such environment, or its actions cannot be written.
        MissingDependency: gymnasium is not installed.
    """

    agents: tuple[str, ...] = (AGENT,)

    def __init__(
        self,
        *,
        id: str,
        arguments: Mapping[str, Any] | None = None,
        actions: Sequence[str] | None = None,
        instructions: str | None = None,
        success_reward: float | None = None,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(tasks=None, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self._gym = self._made(id, arguments or {})
        self._actions = action_names(self._gym.action_space, id, actions or self._known_names(id))
        self._instructions = instructions or self._instructions_for(self._actions)
        self._success_reward = success_reward
        self._total = 0.0
        self._shown = Observation()

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode."""
        observation, info = await in_thread(self._begin, self.seed_of(task, seed))
        self._num_steps, self._total = 0, 0.0
        self._shown = self._observation(observation, info)
        opened = Observation((system(self._instructions), *self._shown.messages), **_beside(self._shown))
        return Step(observations={AGENT: opened}, success={AGENT: self._success(info)})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agent's action; a text that names none is answered with those that there are."""
        self._count_step()
        text = actions[AGENT].text()
        action = text if self._actions is None else action_named(text, self._actions, self._gym.action_space)
        if action is None:
            reminder = user(f"That is no action. Write one of: {', '.join(self._shown.legal_actions or ())}.")
            result: tuple[Any, ...] = (Observation((reminder,), **_beside(self._shown)), 0.0, False, False, {})
        else:
            result = await in_thread(self._take, action)
            self._shown = self._observation(result[0], result[4])
            result = (self._shown, *result[1:])
        observation, reward, terminated, truncated, info = result
        self._total += float(reward)
        is_cut = self._is_cut(bool(terminated or truncated))
        step = Step(
            observations={AGENT: observation},
            rewards={AGENT: Reward(float(reward))},
            terminated=bool(terminated),
            truncated=bool(truncated) or is_cut,
            success={AGENT: self._success(info)},
            stop_reason="max_steps" if is_cut else None,
        )
        if step.is_over:
            self._num_steps = None
        return step

    async def close(self) -> None:
        """Close the environment."""
        self._num_steps = None
        await in_thread(self._gym.close)

    def _made(self, id: str, arguments: Mapping[str, Any]) -> Any:
        """Make the environment.

        Raises:
            ConfigError: there is no such environment.
            MissingDependency: gymnasium is not installed.
        """
        gymnasium = needed("gymnasium", "gymnasium")
        try:
            plain = gymnasium.make(id, **arguments)
            if "render_mode" in arguments or "ansi" not in plain.metadata.get("render_modes", ()):
                return plain
            plain.close()
            return gymnasium.make(id, render_mode="ansi", **arguments)
        except (gymnasium.error.Error, ImportError, TypeError) as error:
            raise ConfigError(f"gymnasium cannot make {id!r}: {error}") from error

    def _known_names(self, id: str) -> tuple[str, ...] | None:
        """Return what the actions are called where the user gives no names; None for their numbers."""
        return NAMES.get(re.sub(r"-v\d+$", "", id.rpartition(":")[2].rpartition("/")[2]))

    def _instructions_for(self, names: Sequence[str] | None) -> str:
        """Return what the agent is told where the user gives no instructions."""
        return instructions_for(names)

    def _begin(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, in a thread."""
        observation, info = self._gym.reset(seed=seed)
        return observation, info

    def _take(self, action: Any) -> tuple[Any, ...]:
        """Take an action, in a thread."""
        result: tuple[Any, ...] = self._gym.step(action)
        return result

    def _observation(self, given: Any, info: Mapping[str, Any]) -> Observation:
        drawing = self._gym.render() if self._gym.render_mode == "ansi" else None
        value = to_json(given)
        text = value if isinstance(value, str) else str(value)
        shown = text
        if drawing is not None:
            shown = _HIGHLIGHTED.sub(r"[\1]", str(drawing)).strip() + f"\nobservation: {text}"
        legal = self._actions
        if legal is not None and "action_mask" in info:
            legal = tuple(name for name, may in zip(legal, info["action_mask"], strict=True) if may)
        return Observation((user(shown),), legal_actions=legal, info={"observation": value} | _noted(info))

    def _success(self, info: Mapping[str, Any]) -> bool | None:
        if self._success_reward is not None:
            return self._total >= self._success_reward
        said = next((info[key] for key in ("success", "is_success") if key in info), None)
        return None if said is None else bool(said)


def _beside(shown: Observation) -> dict[str, Any]:
    return {"legal_actions": shown.legal_actions, "info": shown.info}


def _noted(info: Mapping[str, Any]) -> dict[str, JSON]:
    noted = {key: to_json(value) for key, value in info.items()}
    return {"info": noted} if noted else {}
