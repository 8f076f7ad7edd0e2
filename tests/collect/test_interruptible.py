"""A signal in the midst of many tasks: it ends them in order, and no task's exception is lost on the way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from understudy.collect.interruptible import run_interruptibly


class Stopped(KeyboardInterrupt):
    """What a command makes of SIGTERM."""


@pytest.fixture
def stopping() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("stopping")
def test_a_signal_within_a_task_cancels_them_all_and_is_raised_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(0)
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            while True:
                await asyncio.sleep(0)
        finally:
            ended.append(number)

    async def main() -> None:
        await asyncio.gather(*[work(number) for number in range(4)])

    handler = signal.getsignal(signal.SIGTERM)
    with caplog.at_level(logging.ERROR), pytest.raises(Stopped):
        run_interruptibly(main())
    assert sorted(ended) == [0, 1, 2, 3]
    assert not caplog.records
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.usefixtures("stopping")
def test_a_signal_that_comes_when_all_is_done_is_not_lost() -> None:
    async def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            pass
        return 1

    with pytest.raises(Stopped):
        run_interruptibly(main())


@pytest.mark.usefixtures("stopping")
def test_without_a_signal_it_gives_what_the_coroutine_gives_or_raises() -> None:
    async def give(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert run_interruptibly(give(3)) == 3
    with pytest.raises(ValueError, match="-1"):
        run_interruptibly(give(-1))
    with pytest.raises(asyncio.CancelledError):
        run_interruptibly(cancelled())


@pytest.mark.usefixtures("stopping")
def test_outside_the_main_thread_it_runs_too() -> None:
    async def give() -> int:
        return 5

    found = []
    thread = threading.Thread(target=lambda: found.append(run_interruptibly(give())))
    thread.start()
    thread.join()
    assert found == [5]


@pytest.mark.usefixtures("stopping")
def test_within_a_loop_that_runs_already_it_runs_too() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    async def notebook() -> int:
        return run_interruptibly(main())

    assert asyncio.run(notebook()) == 7


def test_within_a_loop_that_runs_already_an_interrupt_ends_it_in_order() -> None:
    ended = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def notebook() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio has put its own in place
        run_interruptibly(main())

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(notebook())
    assert ended == [True]
