"""Augmentation: further episodes that differ from those that happened in what should make no difference.

An augmentation is given an episode and random numbers, and returns the episode as it might have been, or None where
nothing would be different. It may change what an agent is shown only where every action stays right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from understudy import registry
from understudy.config import Component
from understudy.errors import ConfigError, DataError
from understudy.types import Episode, Tool, Trajectory

ORIGIN = "augmented_from"
"""Key of an episode's metadata that names the one that it was made of."""


class Augmentation(Protocol):
    """Makes another episode of one."""

    def __call__(self, episode: Episode, rng: random.Random) -> Episode | None:
        """Return the episode as it might have been; None where there is no other way."""
        ...


class ShuffleTools:
    """Shows the tools in another order: what a tool is good for does not depend on where it stands."""

    def __call__(self, episode: Episode, rng: random.Random) -> Episode | None:
        return _with_other_tools(episode, lambda trajectory, tools: tuple(rng.sample(tools, len(tools))))


class DropUnusedTools:
    """Leaves out tools that the agent never called.

    Args:
        chance: for each of them.

    Raises:
        ConfigError: the chance is none.
    """

    def __init__(self, chance: float = 0.5) -> None:
        if not 0 < chance <= 1:
            raise ConfigError(f"drop_unused_tools: chance is {chance}; it is above 0 and at most 1")
        self._chance = chance

    def __call__(self, episode: Episode, rng: random.Random) -> Episode | None:
        def fewer(trajectory: Trajectory, tools: Sequence[Tool]) -> tuple[Tool, ...]:
            actions = (turn.action for turn in trajectory.turns if turn.action is not None)
            used = {call.name for action in actions for call in action.tool_calls}
            return tuple(tool for tool in tools if tool.name in used or rng.random() >= self._chance)

        return _with_other_tools(episode, fewer)


def make_augmentations(components: Sequence[Component]) -> list[Augmentation]:
    """Return what a config names.

    Raises:
        ConfigError: one cannot be made, or is no augmentation.
    """
    made = [registry.create("augmentations", one.name, one.arguments) for one in components]
    for component, augmentation in zip(components, made, strict=True):
        if not callable(augmentation):
            raise ConfigError(
                f"augment: {component.name} is no augmentation: it is called with an episode and a Random"
            )
    return made


def augmented(episode: Episode, augmentations: Sequence[Augmentation], *, copies: int, seed: int) -> Iterator[Episode]:
    """Yield the copies of an episode, each after all augmentations in turn; none that is as one before.

    What servers recorded of the tokens is left out, because it is of another prompt.

    Raises:
        DataError: an augmentation of a user's failed, or returned something else.
    """
    seen = [episode]
    for number in range(1, copies + 1):
        rng = random.Random(f"{seed}/{episode.id}/{number}")
        found = episode
        for augmentation in augmentations:
            found = _applied(augmentation, found, rng) or found
        if all(found != one for one in seen):
            seen.append(found)
            metadata = found.metadata | {ORIGIN: episode.id}
            yield replace(_without_tokens(found), id=f"{episode.id}~{number}", metadata=metadata)


def _applied(augmentation: Augmentation, episode: Episode, rng: random.Random) -> Episode | None:
    name = type(augmentation).__name__
    try:
        found: Any = augmentation(episode, rng)
    except Exception as error:  # a user's augmentation is foreign code
        raise DataError(f"episode {episode.id!r}: {name} failed with {type(error).__name__}: {error}") from error
    if found is not None and not isinstance(found, Episode):
        mend = "return an Episode, or None for no change"
        raise DataError(f"episode {episode.id!r}: {name} returned {type(found).__name__}", mend=mend)
    return found


def _with_other_tools(
    episode: Episode, change: Callable[[Trajectory, Sequence[Tool]], tuple[Tool, ...]]
) -> Episode | None:
    """Return the episode with other tools; where an agent had the same ones again, it has the same others again."""
    trajectories = []
    for trajectory in episode.trajectories:
        others: dict[str, tuple[Tool, ...]] = {}
        turns = []
        for turn in trajectory.turns:
            key = json.dumps([tool.definition for tool in turn.tools], default=str)
            if key not in others:
                others[key] = change(trajectory, turn.tools)
            turns.append(replace(turn, tools=others[key]))
        trajectories.append(replace(trajectory, turns=tuple(turns)))
    return None if tuple(trajectories) == episode.trajectories else replace(episode, trajectories=tuple(trajectories))


def _without_tokens(episode: Episode) -> Episode:
    trajectories = (
        replace(t, turns=tuple(replace(turn, sampled=None) for turn in t.turns)) for t in episode.trajectories
    )
    return replace(episode, trajectories=tuple(trajectories))
