"""What a program is allowed, and what became of it: plain data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from understudy.errors import ConfigError
from understudy.types import JSON

Reason = Literal["ok", "error", "time_out", "memory", "output_limit", "killed"]
"""How a program or a call ended.

``ok``: by itself, as it should. ``error``: by an exception, by leaving early, or with a result that is no plain data.
``time_out``, ``memory``, ``output_limit``: at a limit. ``killed``: by a signal, as a crash of the interpreter is.
"""

MIB = 1 << 20

WAITING = 6

SMALLEST_MEMORY_MIB = 64
"""The interpreter itself needs about half of this."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use.

    Processes and threads are limited too: there is one of each.

    Args:
        cpu_seconds: of CPU time.
        wall_seconds: of time gone by without its doing anything, as when it sleeps. Waiting for a core on a busy
            machine does not count where it can be seen (not with bubblewrap), up to `WAITING` times as much in all.
        memory_mib: of address space, the interpreter's own included.
        disk_mib: of files in its folder, all together where it is isolated; each single file where it is not.
        output_kib: of what it prints, and as much again of what its calls return.

    Raises:
        ConfigError: a limit is no number above 0, or the memory is too little for the interpreter.
    """

    cpu_seconds: float = 1.0
    wall_seconds: float = 10.0
    memory_mib: float = 256
    disk_mib: float = 4
    output_kib: float = 64

    @property
    def total_seconds(self) -> float:
        """The most time that goes by, whatever the program does and the machine does to it."""
        return WAITING * self.wall_seconds

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ConfigError(f"{field.name} is {value!r}; give a number above 0")
        if self.memory_mib < SMALLEST_MEMORY_MIB:
            raise ConfigError(f"memory_mib is {self.memory_mib}; it is {SMALLEST_MEMORY_MIB} at least")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call of the program's function came to.

    Args:
        reason: how it ended.
        value: what it returned, when the reason is ``ok``: plain data, as JSON has it.
        message: what went wrong, in a few words; empty when nothing did. The program can choose its text.
    """

    reason: Reason
    value: JSON = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What became of a program.

    Args:
        reason: how it ended.
        message: what went wrong, in a few words; empty when nothing did. The program can choose its text.
        output: what it printed, on standard output and standard error.
        outcomes: one for each call that was asked for, in their order.
        wall_seconds, cpu_seconds, memory_mib: what it used; memory at its peak.
    """

    reason: Reason
    message: str
    output: str
    outcomes: tuple[Outcome, ...]
    wall_seconds: float
    cpu_seconds: float
    memory_mib: float


def is_same(value: JSON, other: JSON) -> bool:
    """Say whether two pieces of plain data are equal, and of equal types throughout: 1, 1.0 and True all differ."""
    if type(value) is not type(other):
        return False
    if isinstance(value, list):
        return len(value) == len(other) and all(map(is_same, value, other))
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(is_same(item, other[key]) for key, item in value.items())
    return bool(value == other)
