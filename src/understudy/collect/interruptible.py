"""Run a coroutine so that a signal ends it in order.

A signal handler that raises does so wherever the program happens to be: within any task, whose exception then nobody
takes. asyncio spares Ctrl-C that by cancelling the main task; here SIGTERM gets the same, where a command has made an
interrupt of it.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_interruptibly(main: Coroutine[Any, Any, Result]) -> Result:
    """Run as `asyncio.run`; at SIGTERM cancel the coroutine, and then let the handler that was there raise.

    Raises:
        BaseException: what the coroutine or the handler of the signal raises.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        return asyncio.run(main)
    received: list[int] = []

    async def watched() -> Result:
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            received.append(signal.SIGTERM)
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
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
