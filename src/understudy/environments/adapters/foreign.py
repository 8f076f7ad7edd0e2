"""What adapters share: tasks, seeds, a limit of steps, and other people's code called where it can hold up nobody.

A foreign environment is ordinary synchronous code, often with a model's reply to wait for, so it runs in a thread. Many
draw from the global generators of random numbers. These are seeded while it is reset, one environment at a time, and
put back; what it draws from them later is up to it, and what another one draws meanwhile cannot be kept from it. One
whose steps wait for nobody can be given generators of its own throughout, with `Generators`.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from understudy import registry
from understudy.environments.frame import NO_EPISODE
from understudy.environments.tasks import TaskSet, split_tasks, task_sizes
from understudy.errors import ConfigError, EnvironmentFault, MissingDependency
from understudy.types import JSON

DEFAULT_MAX_STEPS = 30

_SEEDING = threading.Lock()

_THREADS = ThreadPoolExecutor(max_workers=256, thread_name_prefix="environment")
"""More than the few for each core that asyncio has, because most of them only wait for a reply."""

Result = TypeVar("Result")


class ForeignEnvironment:
    """Tasks that are seeds, or a list of the user's.

    Args:
        tasks: a list of tasks, or a file of them (``.json`` or ``.jsonl``); None for seeds.
        num_tasks, task_seed: of tasks that are seeds, as for the built-in environments.
        max_steps: the episode is truncated after so many steps; None for `default_max_steps`.

    Raises:
        ConfigError: the tasks cannot be read, or a number is none from 1 up.
    """

    default_max_steps: ClassVar[int] = DEFAULT_MAX_STEPS

    def __init__(
        self,
        *,
        tasks: Sequence[JSON] | str | None,
        num_tasks: Mapping[str, int] | int | None,
        task_seed: int,
        max_steps: int | None,
    ) -> None:
        self._given = None if tasks is None else read_tasks(tasks)
        self._sizes = task_sizes(num_tasks)
        self._task_seed = task_seed
        self.max_steps = self.default_max_steps if max_steps is None else max_steps
        if not isinstance(self.max_steps, int) or isinstance(self.max_steps, bool) or self.max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps!r}; give a whole number from 1 up")
        self._num_steps: int | None = None

    def tasks(self, split: str) -> Sequence[JSON]:
        """Return the tasks of a split: the given ones that belong to it, or seeds."""
        if self._given is not None:
            return split_tasks(self._given, split)
        return TaskSet(draw_seed, split=split, size=self._sizes.get(split, 0), seed=self._task_seed)

    def seed_of(self, task: JSON, seed: int | None) -> int:
        """Return the seed that a task stands for, or else the given one.

        Raises:
            EnvironmentFault: it is no task of this environment.
        """
        if self._given is None and task is not None:
            if not isinstance(task, dict) or not isinstance(task.get("seed"), int):
                raise EnvironmentFault(f"this is no task of {type(self).__name__}: {task!r:.200}")
            return int(task["seed"])
        return 0 if seed is None else seed

    def _count_step(self) -> None:
        """Count a step of the episode under way; `_num_steps` is 0 after a reset, and None when there is no episode.

        Raises:
            EnvironmentFault: there is none.
        """
        if self._num_steps is None:
            raise no_episode()
        self._num_steps += 1

    def _is_cut(self, is_over: bool) -> bool:
        """Say whether the episode is to be truncated, where it is not over by itself."""
        return not is_over and self._num_steps is not None and self._num_steps >= self.max_steps


def no_episode() -> EnvironmentFault:
    """Return the error of a step before a reset."""
    return EnvironmentFault(NO_EPISODE)


def needed(module: str, name: str) -> Any:
    """Import and return a module of the package that the environment called `name` adapts; the extra has that name too.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = f"'understudy[{name.replace('_', '-')}]'"
        package = module.partition(".")[0]
        raise MissingDependency(package, needed_for=f"environment.name: {name}", install=extra) from error


def load_class(name: str, argument: str) -> Any:
    """Return a user's class or function, ``package.module:Class`` or ``path/to/file.py:Class``.

    Raises:
        ConfigError: it is not written so, or cannot be imported.
    """
    if not isinstance(name, str) or ":" not in name:
        raise ConfigError(f"{argument} is {name!r}; write package.module:Class or path/to/file.py:Class")
    return registry.load("environments", name)


async def in_thread(function: Callable[..., Result], *arguments: Any, **others: Any) -> Result:
    """Call a function of theirs in a thread.

    Raises:
        EnvironmentFault: it raised StopIteration, which would never come out of a future.
    """
    call = partial(_called, function, *arguments, **others)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call)


def _called(function: Callable[..., Result], *arguments: Any, **others: Any) -> Result:
    try:
        return function(*arguments, **others)
    except StopIteration as error:
        raise EnvironmentFault(f"StopIteration: {error}") from error


class Generators:
    """The global generators of `random` and NumPy as one environment finds them: seeded, and going on by its own draws.

    They stand in the place of the real ones only while a function of the environment runs.
    """

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed % 2**32).get_state()

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function that draws from these; other calls of this kind wait."""
        with _SEEDING:
            python, numpy = random.getstate(), np.random.get_state()
            random.setstate(self._python)
            np.random.set_state(self._numpy)
            try:
                return function()
            finally:
                self._python, self._numpy = random.getstate(), np.random.get_state()
                random.setstate(python)
                np.random.set_state(numpy)


def seeded(seed: int, function: Callable[[], Result]) -> Result:
    """Call a function while the global generators are seeded; other calls of this kind wait."""
    return Generators(seed).call(function)


def call_with(function: Callable[..., Result], possible: Mapping[str, Any]) -> Result:
    """Call a function with those of the possible keyword arguments that it takes."""
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = {parameter.name for parameter in parameters}
    return function(**{key: value for key, value in possible.items() if takes_all or key in known})


def to_json(value: Any) -> JSON:
    """Return a foreign value as JSON; what has no counterpart becomes its text."""
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return str(value)


def read_tasks(tasks: Sequence[JSON] | str) -> list[JSON]:
    """Return a list of tasks, from a file where that is named.

    Raises:
        ConfigError: the file is not there or holds something else, or there are no tasks.
    """
    if isinstance(tasks, str):
        path = Path(tasks)
        try:
            text = path.read_text(encoding="utf-8-sig")
            rows = [line for line in text.split("\n") if line.strip()]
            found = json.loads(text) if path.suffix == ".json" else [json.loads(row) for row in rows]
        except (OSError, ValueError) as error:
            raise ConfigError(f"tasks: {tasks} cannot be read: {error}; give JSON lines, or one JSON array") from error
    else:
        found = list(tasks)
    if not isinstance(found, list) or not found:
        raise ConfigError(f"tasks: {tasks!r:.100} is no list of tasks")
    return found


def draw_seed(rng: random.Random) -> JSON:
    """Return a task that is a seed."""
    return {"seed": rng.randrange(2**31)}
