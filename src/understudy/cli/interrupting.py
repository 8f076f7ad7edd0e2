"""A scheduler's stop (SIGTERM) is an interrupt, as Ctrl-C is, and a command that can go on says so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .console import messages


@contextlib.contextmanager
def raising_at_sigterm(stop: Callable[[int, FrameType | None], Any] = signal.default_int_handler) -> Iterator[None]:
    """Let SIGTERM raise what `stop` raises: KeyboardInterrupt, unless another is given."""
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def saying_how_to_go_on(output_dir: str) -> Iterator[None]:
    """Say at an interrupt, SIGTERM included, that the same command goes on."""
    try:
        with raising_at_sigterm():
            yield
    except KeyboardInterrupt:
        text = f"interrupted; what was finished is in {output_dir}, and the same command goes on"
        messages().print(text, markup=False, soft_wrap=True)
        raise
