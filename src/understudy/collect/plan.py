"""The plan of a collection: which episodes it has, each with an id that says what it is.

The id is a hash of environment, policies, task, seed and sample. So an episode that is there already is known by its
id, whoever played it and when.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence

from understudy.environments import Environment, HasTasks
from understudy.environments.mix import MixedTasks, environment_of
from understudy.errors import ConfigError
from understudy.policies import Policy
from understudy.types import JSON

from .config import CollectConfig
from .engine import close_environment
from .interruptible import run_anywhere
from .rollout import Play


class Plan(Sequence[Play]):
    """The episodes of a collection in order: all samples of the first task, then those of the next.

    Args:
        config: the collection.
        environment: one of its environments, to be asked for tasks. It is the plan's, and goes with `close`.
        policies: who acts, by agent.

    Raises:
        ConfigError: there are no tasks or not so many, or no number of episodes is given where tasks are endless.
    """

    def __init__(self, config: CollectConfig, environment: Environment, policies: Mapping[str, Policy]) -> None:
        self._config = config
        self._environment = environment
        self._tasks = environment.tasks(config.split) if isinstance(environment, HasTasks) else None
        self._size = self._count(config)
        self._fixed = {
            "environment": config.environment.model_dump(mode="json"),
            "policies": {agent: policies[agent].identity() for agent in sorted(policies)},
            "split": config.split,
        }

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(index)
        place, sample = divmod(index, self._config.samples_per_task)
        number = self._config.first_task + place
        task, environment = None, self._config.environment.name
        if self._tasks is not None:
            task = self._tasks[number % len(self._tasks)]
            environment = environment_of(self._environment, task, environment)
        seed = self._config.seed + number
        return Play(
            id=episode_id(self._fixed | {"task": task, "seed": seed, "sample": sample}),
            environment=environment,
            task=task,
            seed=seed,
            sample=sample,
            split=self._config.split,
            metadata={"task_index": number},
        )

    def __iter__(self) -> Iterator[Play]:
        return (self[index] for index in range(self._size))

    def close(self) -> None:
        """Let go of the environment; the plan cannot be asked any more."""
        run_anywhere(close_environment(self._environment))

    def _count(self, config: CollectConfig) -> int:
        per_task = config.samples_per_task
        if self._tasks is None:
            if config.num_episodes is None:
                raise ConfigError(
                    f"num_episodes: environment {config.environment.name!r} has no task set, so say how many episodes"
                )
            return config.num_episodes
        if not self._tasks:
            raise ConfigError(
                f"the {config.split} split has no tasks; name another split, or make some "
                f"({_more_tasks(self._tasks, config.split, 1)})"
            )
        most = len(self._tasks) * per_task
        if config.num_episodes is None:
            return most
        if config.num_episodes > most:
            raise ConfigError(
                f"num_episodes is {config.num_episodes:,}, but the {config.split} split has {len(self._tasks):,} tasks "
                f"and each is played {per_task} times; lower num_episodes (of an evaluation num_tasks), raise "
                f"samples_per_task, or make more tasks "
                f"({_more_tasks(self._tasks, config.split, math.ceil(config.num_episodes / per_task))})"
            )
        return config.num_episodes


def _more_tasks(tasks: Sequence[JSON], split: str, needed: int) -> str:
    """Return how one comes to a set of so many tasks, as far as that can be told."""
    if not isinstance(tasks, MixedTasks):
        return f"the built-in environments take environment.arguments.num_tasks.{split}={needed}"
    lacking = [f"{name} would need {num:,}" for name, num in tasks.lacking(needed).items()]
    how = f"the built-in environments of a mix take num_tasks.{split} among their arguments"
    return f"{', '.join(lacking)}; {how}" if lacking else how


def episode_id(parts: Mapping[str, JSON]) -> str:
    """Return 20 hexadecimal digits that stand for an episode."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
