"""Hindsight: failed episodes as successes at the tasks that they did solve, as their environment tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from understudy import registry
from understudy.environments import HasRelabelling
from understudy.errors import ConfigError, DataError, EnvironmentFault
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
        DataError: an episode is not of this environment, or says not which task was played.
    """
    environment = relabelling_environment(config)
    reader = read_episodes(config.path, config.format)
    num = 0

    def relabelled() -> Iterator[Episode]:
        nonlocal num
        for episode in watch(reader, "relabelling"):
            if episode.success is False and episode.error is None:
                for found in _relabelled(environment, episode, reader.place):
                    num += 1
                    yield found

    write_episodes(target, relabelled(), "native")
    return num


def _relabelled(environment: HasRelabelling, episode: Episode, place: str) -> list[Episode]:
    """Return an episode as plays of other tasks.

    Args:
        place: file and row, for errors.
    """
    if episode.task is None and episode.seed is None:
        raise DataError(
            "the episode has no task and no seed, so nobody knows what was played",
            file=place,
            field="task",
            mend="leave out hindsight, or the rows that were not collected here",
        )
    try:
        return environment.relabel(episode)
    except EnvironmentFault as error:
        mend = "name the environment of these episodes, with its arguments, or leave out hindsight"
        raise DataError(str(error), file=place, field="task", mend=mend) from error
