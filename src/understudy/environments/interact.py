"""Gyms that are acted in by one tool, ``interact_with_env(choice, content)``.

This is the interface of UserRL (arXiv:2509.19736): the action text of a gym is ``"[choice] content"``, and a gym
answers like gymnasium (https://gymnasium.farama.org/api/env): `reset` with observation and info, `step` with
observation, reward, terminated, truncated and info. ``info["success"]`` says whether the task is solved; without it,
that is unknown.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from understudy.types import JSON, Message

from .base import Reward
from .tool_environment import ToolEnvironment, system, user
from .toolbox import Toolbox

Choice = Literal["action", "answer", "search"]

FiveTuple = tuple[Any, float, bool, bool, dict[str, Any]]
"""Observation, reward, terminated, truncated, info."""


class TextGym(Protocol):
    """A gym whose actions are texts ``"[choice] content"``."""

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; ``options["task"]`` is the task. Returns observation and info."""
        ...

    def step(self, action: str) -> FiveTuple:
        """Take an action."""
        ...


@dataclass(slots=True)
class GymState:
    """A gym under way, what it opened with, and what it said last."""

    gym: TextGym
    opening: str
    reward: float = 0.0
    success: bool | None = None


class InteractEnvironment(ToolEnvironment[GymState]):
    """A `TextGym` as an environment. A message without a call is answered with a reminder, and costs a step."""

    instructions: str = "Act in the environment by calling the tool interact_with_env."

    @abstractmethod
    def make_gym(self) -> TextGym:
        """Return a new gym."""

    @abstractmethod
    def draw_task(self, rng: random.Random) -> JSON:
        """Return a task for ``options["task"]``."""

    def make_toolbox(self) -> Toolbox:
        """Return the one tool."""
        return Toolbox(self.interact_with_env)

    def interact_with_env(self, choice: Choice, content: str) -> str:
        """Interact with the environment.

        Args:
            choice: what to do: try an action, give an answer, or search for information
            content: the action, the answer, or what to search for
        """
        state = self.state
        observation, reward, terminated, truncated, info = state.gym.step(f"[{choice}] {content}")
        state.reward += float(reward)
        state.success = info.get("success", state.success)
        if terminated or truncated:
            self.finish(str(info.get("stop_reason") or ("terminated" if terminated else "truncated")))
        return observation_text(observation)

    def begin(self, task: Any) -> tuple[GymState, tuple[Message, ...]]:
        """Reset the gym and show what it opens with."""
        gym = self.make_gym()
        observation, info = gym.reset(options={"task": task})
        state = GymState(gym, observation_text(observation), success=info.get("success", False))
        return state, (system(self.instructions), user(state.opening))

    def on_text(self, text: str) -> str | None:
        """Remind the agent of the tool."""
        return "Please call the tool interact_with_env."

    def reward(self, is_over: bool) -> Reward | None:
        """Return what the gym gave for the latest action."""
        value, self.state.reward = self.state.reward, 0.0
        return Reward(value)

    def is_success(self) -> bool | None:
        """Say what the gym says."""
        return self.state.success


def observation_text(observation: Any) -> str:
    """Return the text of a gym's observation; of a mapping, what stands under ``feedback`` or ``observation``."""
    if isinstance(observation, Mapping):
        observation = next((observation[key] for key in ("feedback", "observation") if key in observation), observation)
    return str(observation)
