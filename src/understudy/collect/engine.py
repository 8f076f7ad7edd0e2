"""Play many episodes at once: a fixed number of workers, each with an environment of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from understudy.environments import Environment
from understudy.policies import Policy
from understudy.types import Episode

from .rollout import Play, play_episode

log = logging.getLogger("understudy.collect")

MakeEnvironment = Callable[[], Environment]
OnEpisode = Callable[[Episode], None]


async def play_all(
    plays: Iterable[Play],
    make_environment: MakeEnvironment,
    policies: Mapping[str, Policy],
    on_episode: OnEpisode,
    *,
    concurrency: int,
    max_turns: int | None = None,
    timeout_seconds: float | None = None,
) -> None:
    """Play episodes; hand each one on as soon as it is finished.

    Args:
        plays: which episodes; taken one by one, as workers become free.
        make_environment: makes an environment; each worker uses one for many episodes, and a new one after a fault.
        policies: who acts, by agent.
        on_episode: is called with every episode, also those that a fault ended. What it raises ends everything.
        concurrency: number of workers.
        max_turns, timeout_seconds: see `play_episode`.

    Raises:
        ConfigError: an environment cannot be made, or a policy cannot play in it.
    """
    waiting = iter(plays)

    async def work() -> None:
        environment: Environment | None = None
        try:
            for play in waiting:
                if environment is None:
                    environment = make_environment()
                episode = await play_episode(
                    environment, policies, play, max_turns=max_turns, timeout_seconds=timeout_seconds
                )
                on_episode(episode)
                if episode.error is not None:
                    faulty, environment = environment, None
                    await close_environment(faulty)
        finally:
            if environment is not None:
                await close_environment(environment)

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def close_environment(environment: Environment) -> None:
    """Close an environment. One that fails at that has given all its episodes already."""
    try:
        await environment.close()
    except Exception as error:  # foreign code
        log.warning("an environment could not be closed: %s: %s", type(error).__name__, error)
