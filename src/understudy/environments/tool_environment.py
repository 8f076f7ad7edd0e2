"""The frame of environments in which one agent acts by calling tools.

A subclass says what a task is, how it begins, what its tools do and what a plain text message means; tasks, splits,
steps, limits and snapshots are here. State is kept in one dataclass, so a snapshot is a copy of it.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from understudy.errors import EnvironmentFault
from understudy.types import JSON, Message, Tool, ToolCall

from .base import Expert, Observation, Reward, Step
from .tasks import TaskSet, task_sizes
from .toolbox import Toolbox

AGENT = "agent"

State = TypeVar("State")


@dataclass(slots=True)
class _Play(Generic[State]):
    """An episode under way."""

    state: State
    num_steps: int = 0
    stop_reason: str | None = None


class ToolEnvironment(ABC, Generic[State]):
    """One agent and its tools.

    Args:
        num_tasks: size of the task sets: one number for all splits, or a number for some (``{"train": 500}``).
        task_seed: other seeds draw other tasks, of the same splits.
        max_steps: the episode is truncated after so many actions.
    """

    agents: tuple[str, ...] = (AGENT,)
    tools: tuple[Tool, ...]
    default_max_steps: ClassVar[int] = 30

    def __init__(
        self, *, num_tasks: Mapping[str, int] | int | None = None, task_seed: int = 0, max_steps: int | None = None
    ) -> None:
        self._sizes = task_sizes(num_tasks)
        self._task_seed = task_seed
        self._task_sets: dict[str, TaskSet] = {}
        self._max_steps = self.default_max_steps if max_steps is None else max_steps
        self._play: _Play[State] | None = None
        self.toolbox = self.make_toolbox()
        self.tools = self.toolbox.tools

    @abstractmethod
    def make_toolbox(self) -> Toolbox:
        """Return the tools; they read and change `state`."""

    @abstractmethod
    def draw_task(self, rng: random.Random) -> JSON:
        """Return one task: JSON that says all there is to know about it."""

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
            raise EnvironmentFault("no episode is under way: reset the environment first")
        return self._play.state

    def finish(self, reason: str) -> None:
        """End the episode with this step."""
        assert self._play is not None
        self._play.stop_reason = reason

    def tasks(self, split: str) -> TaskSet:
        """Return the task set of a split."""
        if split not in self._task_sets:
            size = self._sizes.get(split, 0)
            self._task_sets[split] = TaskSet(self.draw_task, split=split, size=size, seed=self._task_seed)
        return self._task_sets[split]

    def expert(self, agent: str) -> Expert:
        """Return the expert, which reads the state of the episode under way."""
        return self.decide

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode of `task`, or of one that is drawn from the seed."""
        if task is None:
            task = self.draw_task(random.Random(seed))
        try:
            state, messages = self.begin(task)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise EnvironmentFault(f"this is no task of {type(self).__name__} ({reason}): {task!r:.200}") from error
        self._play = _Play(state)
        observation = replace(self.observe(messages), tools=self.tools)
        return Step(observations={AGENT: observation}, success={AGENT: self.is_success()})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agent's action."""
        play = self._play
        if play is None or play.stop_reason is not None:
            raise EnvironmentFault("no episode is under way: reset the environment first")
        play.num_steps += 1
        messages = self._react(actions[AGENT])
        truncated = play.stop_reason is None and play.num_steps >= self._max_steps
        if truncated:
            play.stop_reason = "max_steps"
        is_over = play.stop_reason is not None
        reward, success = self.reward(is_over), self.is_success()
        return Step(
            observations={AGENT: self.observe(messages)} if messages or not is_over else {},
            rewards={} if reward is None else {AGENT: reward},
            terminated=is_over and not truncated,
            truncated=truncated,
            success={AGENT: success},
            stop_reason=play.stop_reason,
        )

    async def close(self) -> None:
        """End the episode under way, if any."""
        self._play = None

    def snapshot(self) -> Any:
        """Return a copy of the state of the episode under way."""
        return copy.deepcopy(self._play)

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self._play = copy.deepcopy(snapshot)

    def _react(self, message: Message) -> tuple[Message, ...]:
        """Run the calls of a message, or take its text. What comes after the end of the episode is not run."""
        assert self._play is not None
        if not message.tool_calls:
            reply = self.on_text(message.text())
            return () if reply is None else (user(reply),)
        results = []
        for call in message.tool_calls:
            content = self.toolbox.call(call) if self._play.stop_reason is None else "Error: the episode is over"
            results.append(Message("tool", content, tool_call_id=call.id, name=call.name))
        return tuple(results)


def system(text: str) -> Message:
    """Return a system message."""
    return Message("system", text)


def user(text: str) -> Message:
    """Return a user message."""
    return Message("user", text)


def says(text: str) -> Message:
    """Return the action of saying something."""
    return Message("assistant", text)


def calls(name: str, /, **arguments: JSON) -> Message:
    """Return the action of calling one tool. Its id is given by whoever records the call."""
    return Message("assistant", tool_calls=(ToolCall(name, arguments),))
