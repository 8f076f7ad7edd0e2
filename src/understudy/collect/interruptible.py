"""Run a coroutine so that a signal ends it in order.

A signal handler that raises does so wherever the program happens to be: within any task, whose exception then nobody
takes. asyncio spares Ctrl-C that by cancelling the main task; here SIGTERM gets the same, where a command has made an
interrupt of it.

A notebook has a loop that runs already, and within one asyncio runs no other: there it runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

INTERRUPT_SECONDS = 0.5
"""A thread that has just begun to wait for a lock sleeps through a signal, and has to look up to notice it."""


def run_anywhere(main: Coroutine[Any, Any, Result]) -> Result:
    """Run as `asyncio.run`, also where a loop is running already; Ctrl-C then ends it too."""
    if not _is_running():
        return asyncio.run(main)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    may_begin, is_stopped = threading.Event(), threading.Event()

    async def told() -> Result:
        task = asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task))
        return await main

    def run() -> Result:
        may_begin.wait()
        if is_stopped.is_set():
            main.close()
            raise asyncio.CancelledError
        return asyncio.run(told())

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            running = pool.submit(run)
            may_begin.set()  # not before: an interrupt within `submit` leaves a thread that nobody would wait for
            while not wait([running], INTERRUPT_SECONDS).done:
                pass
            return running.result()
        except KeyboardInterrupt:
            if not may_begin.is_set():
                is_stopped.set()
            may_begin.set()
            if not is_stopped.is_set():
                loop, task = begun.result()
                with suppress(RuntimeError):  # the loop is closed: it has come to its end
                    loop.call_soon_threadsafe(task.cancel)
            raise


def run_interruptibly(main: Coroutine[Any, Any, Result]) -> Result:
    """Run as `asyncio.run`; at SIGTERM cancel the coroutine, and then let the handler that was there raise.

    Raises:
        BaseException: what the coroutine or the handler of the signal raises.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread() or _is_running():
        return run_anywhere(main)
    received: list[int] = []

    async def watched() -> Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def stop(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

        # The loop's own handlers would go with the loop, and for a moment the signal would kill.
        signal.signal(signal.SIGTERM, stop)
        return await main

    try:
        result = asyncio.run(watched())
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        signal.signal(signal.SIGTERM, handler)
    if received:
        handler(signal.SIGTERM, None)
    return result


def _is_running() -> bool:
    """Say whether a loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
