"""The frame of environments that draw their own tasks: task sets, the episode under way, limits, snapshots.

State is kept in one dataclass, so a snapshot is a copy of it. Who acts and what an action does is for subclasses to
say: one agent with tools in `tool_environment`, several agents in `multi_agent`.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import JSON, Message, ToolCall

from .tasks import TaskSet, task_sizes

NO_EPISODE = "no episode is under way: reset the environment first"

Opening = TypeVar("Opening")


class UnderWay(Protocol):
    """An episode under way."""

    num_steps: int
    stop_reason: str | None


PlayType = TypeVar("PlayType", bound=UnderWay)


class TaskEnvironment(ABC, Generic[PlayType]):
    """Tasks of its own, and one episode at a time.

    Args:
        num_tasks: size of the task sets: one number for all splits, or a number for some (``{"train": 500}``).
        task_seed: other seeds draw other tasks, of the same splits.
        max_steps: the episode is truncated after so many steps.

    Raises:
        ConfigError: a size is no number from 0 up, or `max_steps` none from 1 up.
    """

    default_max_steps: ClassVar[int] = 30

    def __init__(
        self, *, num_tasks: Mapping[str, int] | int | None = None, task_seed: int = 0, max_steps: int | None = None
    ) -> None:
        self._sizes = task_sizes(num_tasks)
        self._task_seed = task_seed
        self._task_sets: dict[str, TaskSet] = {}
        self._max_steps = self.default_max_steps if max_steps is None else max_steps
        if not isinstance(self._max_steps, int) or isinstance(self._max_steps, bool) or self._max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps!r}; give a whole number from 1 up")
        self._play: PlayType | None = None

    @abstractmethod
    def draw_task(self, rng: random.Random) -> JSON:
        """Return one task: JSON that says all there is to know about it."""

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

    async def close(self) -> None:
        """End the episode under way, if any."""
        self._play = None

    def snapshot(self) -> Any:
        """Return a copy of the state of the episode under way."""
        return copy.deepcopy(self._play)

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self._play = copy.deepcopy(snapshot)

    def _opened(self, begin: Callable[[Any], Opening], task: JSON, seed: int | None) -> Opening:
        """Return what `begin` makes of `task`, or of one that is drawn from the seed.

        Raises:
            EnvironmentFault: it is no task of this environment.
        """
        if task is None:
            task = self.draw_task(random.Random(seed))
        try:
            return begin(task)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise EnvironmentFault(f"this is no task of {type(self).__name__} ({reason}): {task!r:.200}") from error

    def _next_step(self) -> PlayType:
        """Return the episode under way, with one more step counted.

        Raises:
            EnvironmentFault: there is none, or it is over.
        """
        if self._play is None or self._play.stop_reason is not None:
            raise EnvironmentFault(NO_EPISODE)
        self._play.num_steps += 1
        return self._play

    def _truncate(self, play: PlayType) -> bool:
        """End an episode that goes on beyond the limit, and say whether that is so."""
        is_truncated = play.stop_reason is None and play.num_steps >= self._max_steps
        if is_truncated:
            play.stop_reason = "max_steps"
        return is_truncated


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
