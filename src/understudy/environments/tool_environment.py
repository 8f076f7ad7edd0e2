"""The frame of environments in which one agent acts by calling tools.

A subclass says what a task is, how it begins, what its tools do and what a plain text message means.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from understudy.errors import EnvironmentFault
from understudy.types import JSON, Message, Tool

from .base import Expert, Observation, Reward, Step
from .frame import NO_EPISODE, TaskEnvironment, calls, says, system, user
from .toolbox import Toolbox, call_all

__all__ = ["AGENT", "ToolEnvironment", "calls", "says", "system", "user"]

AGENT = "agent"

State = TypeVar("State")


@dataclass(slots=True)
class _Play(Generic[State]):
    """An episode under way."""

    state: State
    num_steps: int = 0
    stop_reason: str | None = None


class ToolEnvironment(TaskEnvironment[_Play[State]], Generic[State]):
    """One agent and its tools.

    Args:
        num_tasks: size of the task sets: one number for all splits, or a number for some (``{"train": 500}``).
        task_seed: other seeds draw other tasks, of the same splits.
        max_steps: the episode is truncated after so many actions.
    """

    agents: tuple[str, ...] = (AGENT,)
    tools: tuple[Tool, ...]

    def __init__(
        self, *, num_tasks: Mapping[str, int] | int | None = None, task_seed: int = 0, max_steps: int | None = None
    ) -> None:
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self.toolbox = self.make_toolbox()
        self.tools = self.toolbox.tools

    @abstractmethod
    def make_toolbox(self) -> Toolbox:
        """Return the tools; they read and change `state`."""

    @abstractmethod
    def begin(self, task: Any) -> tuple[State, tuple[Message, ...]]:
        """Return the state in which a task begins, and the messages that open it."""

    @abstractmethod
    def on_text(self, text: str) -> str | None:
        """React to a message without calls: return what the user says to it, or `finish` the episode."""

    @abstractmethod
    def is_success(self) -> bool | None:
        """Say whether the task would count as solved if the episode ended now; None where that is unknown."""

    @abstractmethod
    def decide(self, observation: Observation) -> Message:
        """Return the expert's action in the present state."""

    def reward(self, is_over: bool) -> Reward | None:
        """Return the reward of the latest action: 1 for success and 0 for failure at the end, none before."""
        return Reward(float(bool(self.is_success()))) if is_over else None

    def observe(self, messages: tuple[Message, ...]) -> Observation:
        """Return what the agent observes when these messages are new."""
        return Observation(messages)

    @property
    def state(self) -> State:
        """The state of the episode under way.

        Raises:
            EnvironmentFault: there is none.
        """
        if self._play is None:
            raise EnvironmentFault(NO_EPISODE)
        return self._play.state

    def expert(self, agent: str) -> Expert:
        """Return the expert, which reads the state of the episode under way."""
        return self.decide

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode of `task`, or of one that is drawn from the seed."""
        return self.open(task, seed)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agent's action."""
        return self.take(actions[AGENT])

    def open(self, task: JSON, seed: int | None = None) -> Step:
        """Do what `reset` does, at once."""
        state, messages = self._opened(self.begin, task, seed)
        self._play = _Play(state)
        observation = replace(self.observe(messages), tools=self.tools)
        return Step(observations={AGENT: observation}, success={AGENT: self.is_success()})

    def take(self, action: Message) -> Step:
        """Do what `step` does, at once."""
        play = self._next_step()
        messages = self._react(play, action)
        is_truncated = self._truncate(play)
        is_over = play.stop_reason is not None
        reward, success = self.reward(is_over), self.is_success()
        return Step(
            observations={AGENT: self.observe(messages)} if messages or not is_over else {},
            rewards={} if reward is None else {AGENT: reward},
            terminated=is_over and not is_truncated,
            truncated=is_truncated,
            success={AGENT: success},
            stop_reason=play.stop_reason,
        )

    def _react(self, play: _Play[State], message: Message) -> tuple[Message, ...]:
        """Run the calls of a message, or take its text."""
        if message.tool_calls:
            return call_all(self.toolbox, message, is_over=lambda: play.stop_reason is not None)
        reply = self.on_text(message.text())
        return () if reply is None else (user(reply),)
