"""What server and client say to each other: JSON over HTTP.

``GET /info`` says which environment it is, ``GET /tasks/SPLIT?start=&num=`` gives tasks, ``GET /health`` counts
sessions. ``POST /batch`` takes a list of operations of different sessions and does them at once: ``reset`` (opens the
session), ``step``, ``score`` and ``close``. Each is answered by a line of its own as soon as it is done, so none waits
for another. A session is one episode's environment; it is nobody else's, and ends when it is closed or nobody has asked
for it for too long.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from understudy.environments.base import Score, Step
from understudy.types import JSON, Episode, Message

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PAGE = 200
"""Tasks that are asked for at a time."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one session."""

    op: Literal["reset", "step", "score", "close"]
    session: str
    task: JSON = None
    seed: int | None = None
    actions: dict[str, Message] = field(default_factory=dict)
    episode: Episode | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an operation: a step, a score, or what was at fault; none of them where a session was closed."""

    step: Step | None = None
    score: Score | None = None
    error: str | None = None


def dump_operations(operations: Sequence[Operation]) -> bytes:
    """Write the body of a request."""
    return _dump([_operation().dump_python(operation, mode="json") for operation in operations])


def read_operations(body: bytes) -> list[Operation]:
    """Read it back.

    Raises:
        ValueError: it is no list of operations.
    """
    rows = json.loads(body)
    if not isinstance(rows, list):
        raise ValueError(f"it is {type(rows).__name__}")
    return [_operation().validate_python(row) for row in rows]


def dump_answer(number: int, answer: Answer) -> bytes:
    """Write a line that answers the operation of that number.

    Raises:
        ValueError: the environment has told something that is no JSON.
    """
    return _dump([number, _answer().dump_python(answer, mode="json")]) + b"\n"


def read_answer(line: bytes) -> tuple[int, Answer]:
    """Read it back.

    Raises:
        ValueError: it is no such line.
    """
    number, row = json.loads(line)
    return int(number), _answer().validate_python(row)


def _dump(value: JSON) -> bytes:
    return json.dumps(value).encode()


@cache
def _operation() -> TypeAdapter[Operation]:
    from pydantic import TypeAdapter

    return TypeAdapter(Operation)


@cache
def _answer() -> TypeAdapter[Answer]:
    from pydantic import TypeAdapter

    return TypeAdapter(Answer)
