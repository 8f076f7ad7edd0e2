"""Run programs, many at once, and say what became of each."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from understudy.errors import SandboxError
from understudy.types import JSON

from .host import Sent
from .isolation import REQUIRED, Isolation, jail_for
from .results import MIB, Limits, Outcome, ProgramRun, Reason

MAX_CONCURRENT = max(16, 4 * (os.cpu_count() or 1))
"""Programs that run at the same time. More than there are cores, because a program that sleeps must not hold one."""

GRACE_SECONDS = 30.0
"""A report that comes later than this after the limit does not come at all."""

NUM_WAITS = 10

CHUNK = 1 << 16

MAX_MESSAGE = 500

_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
"""Addresses in memory differ from run to run, and what is recorded of an episode must not."""

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Sandbox:
    """Runs programs that nobody trusts.

    A program sees the Python standard library and an empty folder, and nothing else: no network, no other file of the
    host, no other process, no environment variable. Whatever it does is an answer (`ProgramRun`) and never an exception
    here.

    Args:
        limits: what each program may use.
        isolation: ``required`` for what works on this machine, ``namespaces`` or ``bubblewrap`` for one of them, or
            ``none_i_accept_the_risk``: then programs can read, and in places write, whatever the user can.

    Raises:
        ConfigError: the isolation is not to be had on this machine; the text says what was tried, and the mend.
    """

    def __init__(self, limits: Limits | None = None, *, isolation: Isolation = REQUIRED) -> None:
        self.limits = limits or Limits()
        self._jail = jail_for(isolation)

    @property
    def mechanism(self) -> str:
        """What isolates: ``namespaces``, ``bubblewrap`` or ``none``."""
        return self._jail.mode

    async def run(self, program: str) -> ProgramRun:
        """Run a program as a script.

        Raises:
            SandboxError: the sandbox failed. The program can bring that about in no way.
        """
        return await self._run(program, None, [])

    async def call(self, program: str, function: str, cases: Sequence[Sequence[JSON]]) -> ProgramRun:
        """Run a program, then call its function with the arguments of each case, one after the other.

        What the function returned comes back as data, for the caller to judge. So a program cannot read what was
        expected, and nothing that it does to itself makes a wrong value a right one.

        Raises:
            SandboxError: as `run`.
        """
        return await self._run(program, function, [list(case) for case in cases])

    async def _run(self, program: str, function: str | None, cases: list[list[JSON]]) -> ProgramRun:
        async with _slot():
            sent = self._jail.send(program, self.limits, function=function, cases=cases)
            conversation = _Conversation(sent, self.limits)
            finishing = asyncio.ensure_future(conversation.finish())
            try:
                # In pieces, so that a process that was stopped for long finds at most one of them used up.
                for _ in range(NUM_WAITS):
                    await asyncio.wait([finishing], timeout=(self.limits.total_seconds + GRACE_SECONDS) / NUM_WAITS)
                    if finishing.done():
                        break
                else:
                    raise SandboxError("the jail does not report the end of a program")
                report = finishing.result()
            finally:
                finishing.cancel()
                conversation.close()
        return _judged(conversation, report, self.limits, len(cases))


def _slot() -> asyncio.Semaphore:
    """Return what bounds the number of programs that run at once in this event loop."""
    return _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_CONCURRENT))


class _Intake:
    """Reads a descriptor until its end, but never more than a limit.

    Args:
        descriptor: what to read from; does not block.
        limit: the most bytes that are kept.
        on_excess: is called when there is more; then nothing more is read.
    """

    def __init__(self, descriptor: int, limit: int, on_excess: Callable[[], None]) -> None:
        self.data = bytearray()
        self._loop = asyncio.get_running_loop()
        self._descriptor, self._limit, self._on_excess = descriptor, limit, on_excess
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""
        room = self._limit - len(self.data)
        self.data += chunk[:room]
        if len(chunk) > room:
            self._on_excess()
        if not chunk or len(chunk) > room:
            self.stop()

    def stop(self) -> None:
        """Read no more."""
        self._loop.remove_reader(self._descriptor)
        if not self.done.done():
            self.done.set_result(None)


class _Conversation:
    """A program under way: what it prints, what its harness answers, what its supervisor reports."""

    def __init__(self, sent: Sent, limits: Limits) -> None:
        self.nonce = sent.nonce
        self.is_over_limit = False
        self._sent = sent
        sent.status.setblocking(False)
        limit = int(limits.output_kib * 1024)
        self.output = _Intake(sent.output, limit, self._stop)
        self.results = _Intake(sent.results, limit, self._stop)
        self._status = _Intake(sent.status.fileno(), CHUNK, self._stop)

    async def finish(self) -> dict[str, Any]:
        """Wait for the end, and return the report.

        Raises:
            SandboxError: the supervisor could not do its work.
        """
        await asyncio.gather(self._status.done, self.output.done, self.results.done)
        try:
            report: dict[str, Any] = json.loads(self._status.data)
        except ValueError:
            raise SandboxError("the jail's process died") from None
        if "fault" in report:
            raise SandboxError(f"the jail cannot run a program: {report['fault']}")
        return report

    def close(self) -> None:
        """Stop reading; a program that still runs is ended."""
        for intake in (self._status, self.output, self.results):
            intake.stop()
        self._sent.close()

    def _stop(self) -> None:
        self.is_over_limit = True
        with suppress(OSError):  # it has ended by itself
            self._sent.status.send(b"x")


def _judged(conversation: _Conversation, report: dict[str, Any], limits: Limits, num_cases: int) -> ProgramRun:
    """Say what became of a program: by the report, which is true, and by the answers, which are the program's own."""
    outcomes, end = _answers(bytes(conversation.results.data), conversation.nonce, num_cases)
    reason, message = _ending(report, conversation.is_over_limit, limits, end)
    missing = num_cases - len(outcomes)
    outcomes += [Outcome("error" if reason == "ok" else reason, message=message or "it gave no answer")] * missing
    return ProgramRun(
        reason=reason,
        message=message,
        output=conversation.output.data.decode(errors="replace"),
        outcomes=tuple(outcomes),
        wall_seconds=report["wall_seconds"],
        cpu_seconds=report["cpu_seconds"],
        memory_mib=report["memory_bytes"] / MIB,
    )


def _answers(data: bytes, nonce: str, num_cases: int) -> tuple[list[Outcome], dict[str, Any] | None]:
    """Return the outcomes of the cases in their order, as far as they were answered, and what was said at the end.

    What is no answer of the harness is the program's own scribbling, and ends the reading.
    """
    outcomes: list[Outcome] = []
    for line in data.decode(errors="replace").split("\n"):
        word, _, text = line.partition(" ")
        try:
            said = json.loads(text) if word == nonce else {}
            if "end" in said:
                return outcomes, dict(said["end"])
            if said["case"] != len(outcomes) or len(outcomes) == num_cases:
                break
            outcomes.append(Outcome(_kind(said), message=_message(said)) if "error" in said else
                            Outcome("ok", said["value"]))  # fmt: skip
        except (ValueError, TypeError, KeyError, RecursionError):
            break
    return outcomes, None


def _ending(
    report: dict[str, Any], is_over_limit: bool, limits: Limits, end: dict[str, Any] | None
) -> tuple[Reason, str]:
    """Return why a program ended, and that in words."""
    if is_over_limit:
        return "output_limit", f"more than {limits.output_kib:g} KiB of output"
    if report["stopped_for"] == "wall time":
        return "time_out", f"more than {limits.wall_seconds:g} s"
    if report["stopped_for"] == "total time":
        return "time_out", f"more than {limits.total_seconds:g} s in all"
    if report["stopped_for"] == "CPU time" or (report["signal"] and report["cpu_seconds"] > limits.cpu_seconds):
        return "time_out", f"more than {limits.cpu_seconds:g} s of CPU time"
    if report["signal"]:
        return "killed", f"killed by {signal.Signals(report['signal']).name}"
    if end is None:
        return "error", f"it left by itself, with exit code {report['exit_code']}"
    return (_kind(end), _message(end)) if "error" in end else ("ok", "")


def _kind(said: dict[str, Any]) -> Reason:
    return "memory" if said.get("kind") == "memory" else "error"


def _message(said: dict[str, Any]) -> str:
    """Return what went wrong as a text that can be written anywhere, on one line."""
    text = str(said["error"])[:MAX_MESSAGE].encode(errors="replace").decode()
    line = said.get("line")
    place = f" (line {line})" if type(line) is int else ""
    return " ".join(_ADDRESS.sub("0x...", text).split()) + place
