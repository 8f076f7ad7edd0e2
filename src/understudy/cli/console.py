"""Where the commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120


def results() -> Console:
    """Return a console for what was asked for. Piped tables keep a fixed width instead of wrapping at 80."""
    return _console(stderr=False)


def messages() -> Console:
    """Return a console for notes, progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False)


def show_error(message: str) -> None:
    """Print one error to stderr, its lines unbroken so that paths can be copied."""
    from rich.text import Text

    console = messages()
    console.print(Text.assemble(("error", "bold red"), ": ", message), soft_wrap=True)


class _CurrentStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever `sys.stderr` is at the moment, so that a progress bar can keep log lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


def show_log() -> None:
    """Let what Understudy logs (from level INFO) appear on stderr."""
    logger = logging.getLogger("understudy")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _CurrentStderr) for handler in logger.handlers):
        handler = _CurrentStderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
