from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from understudy.train.interruption import StopRequest

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_nothing_is_interrupted(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.received(CPU) is None
        os.kill(os.getpid(), number)
        assert stop.received(CPU) is number


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_from_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_nothing_is_noted_and_nothing_breaks() -> None:
    found = []

    def work() -> None:
        with StopRequest() as stop:
            found.append(stop.received(CPU))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
