"""The jail's process: isolate, say that it is ready, and fork a supervisor for every request."""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import NoReturn

from . import confine, supervise

NUM_DESCRIPTORS = 4
"""What a request brings: the request's file, the pipes for output and results, and the status socket."""

NICENESS = 10
"""Supervisors and programs give way to whoever asked for them."""

PRELOADED = (
    *("bisect", "collections.abc", "copy", "dataclasses", "datetime", "functools", "heapq", "itertools", "math"),
    *("operator", "re", "string", "typing"),
)
"""Modules that programs often import: loaded once here, they cost a program nothing."""


def main() -> NoReturn:
    """Serve requests from the socket on descriptor 0 until it is closed.

    Arguments: the folder that this package was imported from; the mode (``namespaces``, ``bubblewrap`` or ``none``);
    ``one`` or ``many`` requests.
    """
    _, mode, number = sys.argv[1:]
    sys.path.remove(sys.argv[1])
    caller = socket.socket(fileno=os.dup(0))
    try:
        if number == "many":
            for name in PRELOADED:
                importlib.import_module(name)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY) if mode != "bubblewrap" else None
        if mode == "namespaces":
            confine.enter()
    except Exception as error:
        caller.sendall(json.dumps({"fault": str(error)}).encode() + b"\n")
        os._exit(1)
    # A process of this kind does not push the caller off its core when a request wakes it, and gives way on it.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(NICENESS)
    with contextlib.suppress(BrokenPipeError):  # a caller that has sent its one request listens no more
        caller.sendall(b'{"ready": true}\n')
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # The kernel buries the supervisors: who wants to know of them has heard it from themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while (descriptors := _next_request(caller)) is not None:
        if number == "one" or os.fork() == 0:
            request, output, results, status = descriptors
            caller.close()
            supervise.supervise(mode, proc, request, output, results, socket.socket(fileno=status))
        for descriptor in descriptors:
            os.close(descriptor)
    os._exit(0)


def _next_request(caller: socket.socket) -> list[int] | None:
    """Return the descriptors of the next request; None where the caller has gone."""
    numbers = array.array("i")
    word, ancillary, _, _ = caller.recvmsg(1, socket.CMSG_SPACE(NUM_DESCRIPTORS * numbers.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data)
    return list(numbers) if word else None
