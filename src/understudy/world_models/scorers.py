"""Scorers: how good an imagined end is. The planner takes the action whose rollout has the highest score.

A scorer of your own is a function that gets an `ImaginedRollout` and returns a number, or a subclass of `Scorer`, named
as ``file.py:name`` or ``package.module:name``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from understudy import registry
from understudy.environments import Environment
from understudy.environments.reading import HasReading
from understudy.errors import ConfigError, PolicyError
from understudy.policies.nested import component_of
from understudy.types import JSON, Message, Tool

from .world_model import WorldModel

UNKNOWN = 0.5
"""The score of an end that says neither success nor failure."""


@dataclass(frozen=True, slots=True)
class ImaginedRollout:
    """A conversation that was played on in a dream.

    Args:
        messages: all of it, what really happened first.
        tools: the agent's.
        task: of the real episode.
        num_imagined: the messages at the end that were imagined.
        num_actions: the actions among these.
        stop_reason: why the dream is over; None where it was only not dreamt on.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    task: JSON
    num_imagined: int
    num_actions: int
    stop_reason: str | None


class Scorer(ABC):
    """Says how good an imagined end is; more is better."""

    def check(self, environment: Environment) -> None:  # noqa: B027 (most scorers suit any environment)
        """Refuse an environment that cannot be scored.

        Raises:
            ConfigError: says why.
        """

    @abstractmethod
    async def score(self, rollout: ImaginedRollout, environment: Environment, world_model: WorldModel) -> float:
        """Return the score. The environment may be asked to read, and nothing else: it is where the real episode is."""


class EnvironmentScorer(Scorer):
    """What the environment reads off the conversation: from 0 (failed) to 1 (solved), and 0.5 where it does not say."""

    def check(self, environment: Environment) -> None:
        """Refuse an environment that cannot read a conversation."""
        if not isinstance(environment, HasReading):
            raise ConfigError(
                f"{type(environment).__name__} cannot read off a conversation how it stands; name another scorer"
            )

    async def score(self, rollout: ImaginedRollout, environment: Environment, world_model: WorldModel) -> float:
        """Ask the environment."""
        assert isinstance(environment, HasReading)
        value = environment.read(rollout.task, rollout.messages).value
        return UNKNOWN if value is None else value


class TextScorer(Scorer):
    """How likely the world model finds it that the conversation goes on with a text that stands for success.

    Args:
        text: such as ``Thank you, that is all.``
        role: who would say it.
    """

    def __init__(self, text: str, role: str = "user") -> None:
        if not text.strip():
            raise ConfigError("text is empty; give what would be said after a success")
        self._message = Message(role, text)

    async def score(self, rollout: ImaginedRollout, environment: Environment, world_model: WorldModel) -> float:
        """Return the natural logarithm of the text's probability."""
        return await world_model.log_likelihood(rollout.messages, rollout.tools, self._message)


class _FunctionScorer(Scorer):
    """A user's function."""

    def __init__(self, function: Callable[[ImaginedRollout], float]) -> None:
        self._function = function

    async def score(self, rollout: ImaginedRollout, environment: Environment, world_model: WorldModel) -> float:
        try:
            found = self._function(rollout)
            return float(await found if inspect.isawaitable(found) else found)
        except Exception as error:  # a scorer is foreign code: whatever it raises ends its episode and no other
            raise PolicyError(f"the scorer failed: {type(error).__name__}: {error}") from error


def make_scorer(given: str | Mapping[str, Any]) -> Scorer:
    """Return the scorer that is meant: a name, or ``{name: …, arguments: {…}}``.

    Raises:
        ConfigError: it is unknown, or does not take these arguments.
    """
    component = component_of("scorer", given)
    found = registry.load("scorers", component.name)
    if inspect.isclass(found):
        scorer = registry.create("scorers", component.name, component.arguments)
        if not isinstance(scorer, Scorer):
            raise ConfigError(f"scorer: {component.name!r} is no Scorer (see understudy.world_models.scorers)")
        return scorer
    return _FunctionScorer(partial(found, **component.arguments) if component.arguments else found)
