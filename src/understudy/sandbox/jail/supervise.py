"""One program, from the fork to the report: its limits, its watch, and why it ended.

The program's process is the supervisor's child. The supervisor waits for its end, for a limit, or for word from the
caller, whichever comes first; then it kills what is left and reports. It never reads anything that the program wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import resource
import secrets
import select
import signal
import socket
import tempfile
import time
from typing import Any, NamedTuple

from . import confine, kernel, program, seccomp

MAX_OPEN_FILES = 64
QUICK_CPU_SECONDS = 0.01
LOWEST_PRIORITY = 19
"""Programs that take longer than a moment give way to nearly everybody."""

SHORTEST_WAIT_SECONDS = 0.002
STANDSTILL_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.05
"""How often a program that waits for a core is looked at once its time would be up."""

SPARE_CPU_SECONDS = 1
"""The kernel's own limit on CPU time counts whole seconds; it stands behind the supervisor's exact one."""

OUTPUT, RESULTS, TELL = 1, 3, 4
"""The program's descriptors: what it prints, what its harness answers, and until it starts, what went wrong."""

MAX_DESCRIPTOR = 1 << 20


def supervise(mode: str, proc: int | None, request: int, output: int, results: int, status: socket.socket) -> None:
    """Run one program and report how it ended, as one line of JSON. Does not return.

    Args:
        mode: of the jail: ``namespaces``, ``bubblewrap`` or ``none``.
        proc: descriptor of the host's /proc, where there is one. The program does not get it.
        request: descriptor of a file with the request as JSON.
        output, results: descriptors of the pipes for what the program prints and answers.
        status: gets the report. A word from the other end, or its being closed, ends the program.
    """
    report: dict[str, Any]
    scratch = None
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(request, "rb") as file:
            asked = json.load(file)
        limits = asked["limits"]
        scratch = _prepare(mode, limits)
        started = time.monotonic()
        pid = _fork_program(mode, asked, scratch or confine.SCRATCH, output, results)
        stopped_for = _watch(pid, proc, status, started, limits)
        report = _report(pid, started) | {"stopped_for": stopped_for}
    except BaseException as error:  # whatever it is, the caller has to hear of it
        report = {"fault": f"{type(error).__name__}: {error}"}
    try:
        status.sendall(json.dumps(report).encode())
        status.close()
        if scratch is not None:
            _remove(scratch)
    finally:
        os._exit(0)


def _prepare(mode: str, limits: dict[str, Any]) -> str | None:
    """Make the scratch folder. Return it where it has to be deleted afterwards."""
    if mode == "namespaces":
        confine.enter_scratch(limits["disk_bytes"])
    return tempfile.mkdtemp(prefix="sandbox-") if mode == "none" else None


def _remove(folder: str) -> None:
    """Delete a folder, whatever a program has made of it: deeper than any path can be long, or closed to its owner."""
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for name in os.listdir(entry.path):
                os.rename(os.path.join(entry.path, name), os.path.join(folder, secrets.token_hex(16)))
            os.rmdir(entry.path)
    os.rmdir(folder)


def _fork_program(mode: str, asked: dict[str, Any], scratch: str, output: int, results: int) -> int:
    """Start the program in a process of its own, confined before its first line runs. Return the process's number.

    Raises:
        OSError: it could not be confined. The program cannot feign this: the pipe that tells is closed when it starts.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _arrange_descriptors(output, results, tell)
            os.chdir(scratch)
            _confine(mode, asked["limits"])
        except BaseException as error:
            os.write(TELL, str(error).encode())
            os._exit(1)
        os.close(TELL)
        program.run(asked, scratch, RESULTS)
    for descriptor in (output, results, tell):
        os.close(descriptor)
    with open(told, "rb") as file:
        problem = file.read().decode()
    if problem:
        raise OSError(problem)
    return pid


def _arrange_descriptors(output: int, results: int, tell: int) -> None:
    """Give the program its descriptors, and no others."""
    # Copies first, because a descriptor may have the number that another one is to get.
    output, results, tell = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, 16) for descriptor in (output, results, tell))
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (output, OUTPUT), (output, OUTPUT + 1), (results, RESULTS), (tell, TELL)):
        os.dup2(descriptor, number)
    os.closerange(TELL + 1, MAX_DESCRIPTOR)


def _confine(mode: str, limits: dict[str, Any]) -> None:
    """Take every right from this process that a program shall not have."""
    os.setpgid(0, 0)
    if mode == "namespaces":
        confine.become_nobody()
    _limit(limits)
    kernel.drop_capabilities()
    kernel.hide_memory()
    kernel.die_with_parent(signal.SIGKILL)
    if seccomp.is_known():
        kernel.install_filter(seccomp.filter_for(os.getpid()))
    elif mode != "none":
        raise OSError(f"there is no filter of system calls for the processor {platform.machine()}")


def _limit(limits: dict[str, Any]) -> None:
    """Set the kernel's limits. They hold for the program and cannot be raised again."""
    cpu_seconds = int(limits["cpu_seconds"]) + 1 + SPARE_CPU_SECONDS
    for which, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        resource.setrlimit(which, (value, value))


def _watch(pid: int, proc: int | None, status: socket.socket, started: float, limits: dict[str, Any]) -> str | None:
    """Wait for the end of a program. Return why it was stopped; None where it ended by itself."""
    poller = select.poll()
    process = os.pidfd_open(pid)
    poller.register(process, select.POLLIN)
    poller.register(status, select.POLLIN)
    is_quick, stood_still = True, 0.0
    while True:
        now = time.monotonic()
        wall_seconds, cpu_seconds, waiting = now - started - stood_still, _cpu_seconds(pid), _waiting(proc, pid)
        cpu_left = limits["cpu_seconds"] - cpu_seconds
        idle_left = limits["wall_seconds"] - (wall_seconds - cpu_seconds - waiting.seconds)
        total_left = limits["total_seconds"] - wall_seconds
        if min(cpu_left, total_left) <= 0 or (idle_left <= 0 and not waiting.is_now):
            os.kill(pid, signal.SIGKILL)
            return "CPU time" if cpu_left <= 0 else "total time" if total_left <= 0 else "wall time"
        # Where its waiting for a core is not seen, it must not be made to wait.
        if is_quick and cpu_seconds >= QUICK_CPU_SECONDS and proc is not None:
            is_quick = False
            with contextlib.suppress(PermissionError):  # in a container whose root may not do this
                os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
        # A program of one thread cannot use more CPU time than time goes by.
        wait = min(total_left, cpu_left, QUICK_CPU_SECONDS - cpu_seconds if is_quick else cpu_left)
        wait = min(wait, idle_left if idle_left > 0 else LOOK_AGAIN_SECONDS)
        wait = max(SHORTEST_WAIT_SECONDS, wait)
        ready = {descriptor for descriptor, _ in poller.poll(1000 * wait)}
        # Whoever stops all of these processes for a while, and lets them go on, changes no result.
        overslept = time.monotonic() - now - wait
        stood_still += overslept if overslept > STANDSTILL_SECONDS else 0.0
        if process in ready:
            return None
        if status.fileno() in ready:
            os.kill(pid, signal.SIGKILL)
            return "the caller"


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, from the clock that clock_getcpuclockid(3) names; 0 when it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


class _Waiting(NamedTuple):
    """How long a process wanted a core and had none, and whether that is so now."""

    seconds: float = 0.0
    is_now: bool = False


def _waiting(proc: int | None, pid: int) -> _Waiting:
    """Return what schedstat and stat say (proc(5)); nothing where they are not to be seen."""
    if proc is None:
        return _Waiting()
    try:
        state = _read(proc, f"{pid}/stat").rpartition(")")[2].split()[0]
        # The kernel adds a time of waiting only when it is over.
        return _Waiting(int(_read(proc, f"{pid}/schedstat").split()[1]) / 1e9, state == "R")
    except OSError:
        return _Waiting()


def _read(folder: int, path: str) -> str:
    with open(os.open(path, os.O_RDONLY, dir_fd=folder)) as file:
        return file.read()


def _report(pid: int, started: float) -> dict[str, Any]:
    _, ended, usage = os.wait4(pid, 0)
    return {
        "exit_code": os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else None,
        "signal": os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else None,
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "memory_bytes": usage.ru_maxrss * 1024,
    }
