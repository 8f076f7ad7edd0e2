"""When a dream is over: where the borrowed environment can read it off the conversation, or where a pattern says so.

A world model says what is observed, and not whether an episode goes on. So the end is told by rules that are read off
the text alone, and by nothing else; without any rule only a limit of length ends a dream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from understudy.environments import Environment
from understudy.environments.reading import HasReading, Reading
from understudy.errors import ConfigError
from understudy.types import JSON, Message

MAX_STEPS = "max_steps"
CONTEXT_LENGTH = "context_length"


class Ending:
    """Reads how a conversation stands.

    Args:
        environment: is asked where it can read conversations.
        patterns: stop reason -> regular expression, searched in ``role: text`` of the newest message; the first that is
            found ends the dream.

    Raises:
        ConfigError: a pattern is no regular expression.
    """

    def __init__(self, environment: Environment, patterns: Mapping[str, str]) -> None:
        self._environment = environment
        self._patterns = compiled(patterns)

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Return how the conversation stands."""
        newest = f"{messages[-1].role}: {messages[-1].text()}"
        for reason, pattern in self._patterns.items():
            if pattern.search(newest):
                found = self._of_environment(task, messages)
                return Reading(reason, found.value)
        return self._of_environment(task, messages)

    def _of_environment(self, task: JSON, messages: Sequence[Message]) -> Reading:
        return self._environment.read(task, messages) if isinstance(self._environment, HasReading) else Reading()


def compiled(patterns: Mapping[str, str]) -> dict[str, re.Pattern[str]]:
    """Return the patterns, ready to search.

    Raises:
        ConfigError: one is no regular expression.
    """
    found: dict[str, re.Pattern[str]] = {}
    for reason, pattern in patterns.items():
        try:
            found[reason] = re.compile(pattern, re.DOTALL)
        except (re.error, TypeError) as error:
            raise ConfigError(f"ends.{reason}: {pattern!r} is no regular expression: {error}") from error
    return found
