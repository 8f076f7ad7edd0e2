"""The caller's side of the jail: its process, and how a program is sent there."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from understudy.errors import SandboxError

from .results import MIB, Limits

Mode = Literal["namespaces", "bubblewrap", "none"]

START_SECONDS = 20.0

HERE = str(Path(__file__).resolve().parent)
INSIDE = "/understudy"
"""The folder that holds the package `jail`: here, and where bubblewrap shows it."""

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from jail.main import main; main()"

ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""All of the jail's environment. The fixed hash seed gives sets the same order in every jail."""

LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")


@dataclass(frozen=True, slots=True)
class Sent:
    """A program under way.

    Args:
        nonce: what each of the harness's answers begins with.
        output, results: descriptors to read from, which never block.
        status: gives the supervisor's report; closing it, or writing to it, ends the program.
        process: the process that is the program's alone, where there is one.
    """

    nonce: str
    output: int
    results: int
    status: socket.socket
    process: subprocess.Popen[bytes] | None

    def close(self) -> None:
        """End the program, and let go of everything."""
        self.status.close()
        os.close(self.output)
        os.close(self.results)
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Jail:
    """A process that runs programs, started when it is first needed, and again when it has died.

    Args:
        mode: how it is isolated. A `bubblewrap` jail runs one program only, so there is one for each.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starter = 0
        self._lock = threading.Lock()
        atexit.register(self.close)

    def send(
        self, program: str, limits: Limits, *, function: str | None = None, cases: list[list[Any]] | None = None
    ) -> Sent:
        """Start a program.

        Args:
            program: its text.
            limits: what it may use.
            function: what is to be called once it has run; None for nothing.
            cases: the arguments of each call, as JSON.

        Raises:
            SandboxError: the jail cannot be started.
        """
        nonce = secrets.token_hex(8)
        asked = {"program": program, "function": function, "cases": cases or [], "nonce": nonce}
        request = _file(asked | {"limits": _limits(limits)})
        output, output_end = _pipe()
        results, results_end = _pipe()
        status, status_end = socket.socketpair()
        try:
            process = self._hand_over([request, output_end, results_end, status_end.fileno()], limits)
        except BaseException:
            os.close(output)
            os.close(results)
            status.close()
            raise
        finally:
            for descriptor in (request, output_end, results_end):
                os.close(descriptor)
            status_end.close()
        return Sent(nonce, output, results, status, process)

    def rehearse(self) -> None:
        """Start a jail, let it look around, and run an empty program in it.

        Raises:
            SandboxError: it does not work; the text says what does not.
        """
        limits = Limits(wall_seconds=START_SECONDS)
        with tempfile.TemporaryFile() as errors:
            process, own = _start(self.mode, limits, errors)
            try:
                own.settimeout(START_SECONDS)
                word = own.makefile("rb").readline()
                errors.seek(0)
                said = json.loads(word) if word else {"fault": errors.read().decode(errors="replace").strip()}
            except TimeoutError:
                said = {"fault": f"it did not start within {START_SECONDS:g} seconds"}
            finally:
                own.close()
                process.kill()
                process.wait()
        if "fault" in said:
            raise SandboxError(said["fault"] or "it ended at once")
        sent = self.send("", limits)
        try:
            sent.status.settimeout(START_SECONDS)
            report = json.loads(sent.status.recv(4096) or b'{"fault": "it died"}')
        except TimeoutError:
            report = {"fault": f"no program ended within {START_SECONDS:g} seconds"}
        finally:
            sent.close()
        if report.get("exit_code") != 0:
            raise SandboxError(report.get("fault", f"an empty program failed: {report}"))

    def close(self) -> None:
        """End the jail's process, and all programs in it."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        # A fork of the caller has a copy of this object, and its end is not the end of the jail.
        if self._process is not None and self._starter == os.getpid():
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _hand_over(self, descriptors: list[int], limits: Limits) -> subprocess.Popen[bytes] | None:
        """Send descriptors to a jail, and return its process where it is the program's alone."""
        if self.mode == "bubblewrap":
            process, own = _start(self.mode, limits)
            with own:
                socket.send_fds(own, [b"r"], descriptors)
            return process
        with self._lock:
            for is_last in (False, True):
                if self._socket is None:
                    self._process, self._socket = _start(self.mode, limits)
                    self._starter = os.getpid()
                try:
                    socket.send_fds(self._socket, [b"r"], descriptors)
                except (BrokenPipeError, ConnectionResetError) as error:
                    self._close()
                    if is_last:
                        raise SandboxError(f"the jail's process ends as soon as it is started: {error}") from error
                else:
                    return None
        raise AssertionError


def _start(
    mode: Mode, limits: Limits, errors: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a jail's process, and return it with the socket to it.

    Raises:
        SandboxError: the interpreter or the tool cannot be run.
    """
    number = "one" if mode == "bubblewrap" else "many"
    folder = INSIDE if mode == "bubblewrap" else HERE
    command = [_interpreter(), "-S", "-s", "-P", "-u", "-c", BOOT, folder, mode, number]
    own, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [*_bubblewrap(limits), *command] if mode == "bubblewrap" else command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=errors or subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            # Ctrl-C at the terminal is for the caller. A session of its own would have a share of the CPU of its own
            # (sched_autogroup), and programs would no longer give way.
            process_group=0,
        )
    except OSError as error:
        own.close()
        raise SandboxError(f"the jail's process cannot be started: {error}") from error
    finally:
        theirs.close()
    return process, own


def _interpreter() -> str:
    """Return this interpreter itself, outside of any virtual environment."""
    return os.path.realpath(sys.executable)


def _bubblewrap(limits: Limits) -> list[str]:
    """Return the command line of bubblewrap, up to the command that it runs.

    Raises:
        SandboxError: it is not installed.
    """
    tool = shutil.which("bwrap")
    if tool is None:
        raise SandboxError("bwrap is not installed")
    command = [tool, "--unshare-all", "--die-with-parent", "--hostname", "sandbox", "--uid", "1000", "--gid", "1000"]
    library = os.path.dirname(os.__file__)
    for folder in LIBRARY_FOLDERS:
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    # The shared library of the interpreter lies beside its own, where it has one.
    for path in (_interpreter(), os.path.dirname(library)):
        command += ["--ro-bind", path, path]
    command += ["--ro-bind", f"{HERE}/jail", f"{INSIDE}/jail"]
    packages = os.path.join(library, "site-packages")
    if os.path.isdir(packages):
        command += ["--tmpfs", packages]
    for name in ("null", "zero", "random", "urandom"):
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    num_bytes = int(limits.disk_mib * MIB)
    return [*command, "--size", str(num_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/", "--"]


def _limits(limits: Limits) -> Mapping[str, float]:
    return {
        "cpu_seconds": limits.cpu_seconds,
        "wall_seconds": limits.wall_seconds,
        "total_seconds": limits.total_seconds,
        "memory_bytes": int(limits.memory_mib * MIB),
        "disk_bytes": int(limits.disk_mib * MIB),
    }


def _file(content: Any) -> int:
    """Return the descriptor of a file in memory that holds something as JSON, to be read from its beginning."""
    descriptor = os.memfd_create("request")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(json.dumps(content).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _pipe() -> tuple[int, int]:
    """Return a pipe whose reading end never blocks."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return reading, writing
