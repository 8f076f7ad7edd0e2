"""Reading off a conversation how an episode stands: for what is played without the environment's own state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from understudy.types import JSON, Message


@dataclass(frozen=True, slots=True)
class Reading:
    """What a conversation says of how the episode stands. What it does not say is None.

    Args:
        stop_reason: the episode is over, and why.
        value: how well it went or goes, from 0 (failed) to 1 (solved).
    """

    stop_reason: str | None = None
    value: float | None = None


@runtime_checkable
class HasReading(Protocol):
    """Can read conversations, real ones and imagined ones alike."""

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Return how the episode of a task stands after these messages, from their text alone.

        The state of an episode under way is neither asked nor changed.
        """
        ...
