"""Hindsight: failed episodes as successes at the tasks that they did solve, as their environment tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from understudy import registry
from understudy.environments import HasRelabelling
from understudy.errors import ConfigError
from understudy.formats import read_episodes, write_episodes
from understudy.types import Episode

from .config import CurateConfig

RELABELLED = "relabelled.jsonl"

Watch = Callable[[Iterable[Episode], str], Iterator[Episode]]
"""Passes episodes on and shows how far it has come; the text says with what."""


def relabelling_environment(config: CurateConfig) -> HasRelabelling:
    """Return the environment that is asked.

    Raises:
        ConfigError: it cannot be made, or cannot say which goal was reached.
    """
    assert config.environment is not None
    environment = registry.create("environments", config.environment.name, config.environment.arguments)
    if not isinstance(environment, HasRelabelling):
        raise ConfigError(
            f"hindsight: {config.environment.name} cannot say which other task an episode has solved (it has no "
            "relabel); leave hindsight out"
        )
    return environment


def write_relabelled(config: CurateConfig, target: Path, watch: Watch) -> int:
    """Write what failed of a config's data as successes at other tasks, and return how many there are.

    Raises:
        ConfigError: the environment cannot be asked.
        EnvironmentFault: an episode is not of this environment.
    """
    environment = relabelling_environment(config)
    num = 0

    def relabelled() -> Iterator[Episode]:
        nonlocal num
        for episode in watch(read_episodes(config.path, config.format), "relabelling"):
            if episode.success is False and episode.error is None:
                for found in environment.relabel(episode):
                    num += 1
                    yield found

    write_episodes(target, relabelled(), "native")
    return num
