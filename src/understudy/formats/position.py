"""How far a source has been read, so that a long command can say when it will be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence


class ReadPosition:
    """The share of a source's bytes that has been read, counted as they lie on the disk.

    Args:
        files: all files of the source, in the order of reading.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in files]
        self._is_known = "-" not in files and sum(self._sizes) > 0
        self._num_begun = 0
        self._num_bytes: Callable[[], float] = lambda: 0

    def begin_file(self) -> None:
        """The next file begins; those before it are done."""
        self._num_begun += 1
        self._num_bytes = lambda: 0

    def follow(self, tell: Callable[[], int]) -> None:
        """Take the position within the current file from `tell`."""
        self._num_bytes = tell

    def set_share(self, share: float) -> None:
        """Note that this share of the current file has been read."""
        self._num_bytes = lambda: share * self._sizes[self._num_begun - 1]

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where nobody can know, as for standard input."""
        if not self._is_known or not self._num_begun:
            return None
        done, current = sum(self._sizes[: self._num_begun - 1]), self._sizes[self._num_begun - 1]
        try:
            within = self._num_bytes()
        except ValueError:  # the file has been closed, so it is done
            within = current
        return min(1.0, (done + min(within, current)) / sum(self._sizes))
