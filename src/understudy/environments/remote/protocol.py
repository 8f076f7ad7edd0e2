"""What server and client say to each other: JSON over HTTP.

``GET /info`` says which environment it is, ``GET /tasks/SPLIT?start=&num=`` gives tasks, ``GET /health`` counts
sessions. ``POST /batch`` takes a list of operations and answers each of them, in the same order: ``reset`` (opens the
session), ``step`` and ``close``, of different sessions, at once. A session is one episode's environment; it is nobody
else's, and ends when it is closed or nobody has asked for it for too long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from understudy.environments.base import Step
from understudy.types import JSON, Message

PAGE = 200
"""Tasks that are asked for at a time."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one session."""

    op: Literal["reset", "step", "close"]
    session: str
    task: JSON = None
    seed: int | None = None
    actions: dict[str, Message] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an operation: a step, or what was at fault; neither where a session was closed."""

    step: Step | None = None
    error: str | None = None


@cache
def operations() -> Any:
    """Return what reads and writes a list of operations."""
    from pydantic import TypeAdapter

    return TypeAdapter(list[Operation])


@cache
def answers() -> Any:
    """Return what reads and writes a list of answers."""
    from pydantic import TypeAdapter

    return TypeAdapter(list[Answer])
