"""Stopping on request: the first SIGTERM or Ctrl-C lets the step finish and be saved; a second Ctrl-C ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes that the run was asked to stop. Used as a context; outside the main thread it notes no signal.

    Args:
        also: is asked beside the signals, and answers whether the run is to stop as by SIGTERM; None for signals only.
    """

    def __init__(self, also: Callable[[], bool] | None = None) -> None:
        self._also = also
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def received(self, device: torch.device) -> signal.Signals | None:
        """Return the signal that any rank has received so far, the same on all ranks; None for none.

        A signal reaches the ranks at different moments, so they must agree on the step after which they stop.
        """
        if self._received is None and self._also is not None and self._also():
            self._received = signal.SIGTERM
        if not dist.is_initialized():
            return self._received
        number = torch.tensor(int(self._received or 0), device=device)
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        return signal.Signals(int(number)) if int(number) else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        # A run that hangs, or a user in a hurry: the second Ctrl-C is Python's own.
        signal.signal(signal.SIGINT, signal.default_int_handler)
