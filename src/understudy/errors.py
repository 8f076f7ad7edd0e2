"""Every error that Understudy raises on purpose.

One root and flat boundary types: catch `UnderstudyError` to catch all of ours, or one boundary type to handle one
boundary. A message says where (file, row, field), what is wrong, and the mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self


class UnderstudyError(Exception):
    """Root of all deliberate errors."""


class ConfigError(UnderstudyError):
    """A config file, a key, an override or a command-line argument is wrong."""


class DataError(UnderstudyError):
    """Something in the user's data is wrong.

    Args:
        reason: what is wrong, in one sentence.
        file: the file the row came from, as the user named it.
        row: 1-based number of the row in its file (the line number for JSON lines).
        field: dotted path of the field within the row, e.g. ``messages[3].content``.
        mend: what the user can do about it.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        row: int | None = None,
        field: str | None = None,
        mend: str | None = None,
    ) -> None:
        self.reason = reason
        self.file = file
        self.row = row
        self.field = field or None
        self.mend = mend
        super().__init__(reason)

    def __str__(self) -> str:
        place = self.file or ""
        if self.row is not None:
            place += f":{self.row}" if place else f"row {self.row}"
        parts = [part for part in (place, self.field) if part]
        text = ": ".join([*parts, self.reason])
        return f"{text} (mend: {self.mend})" if self.mend else text

    def at(self, *, file: str | None = None, row: int | None = None, field: str | None = None) -> Self:
        """Return this error with the outer place filled in where it was not known yet.

        A nested `field` is appended to the outer one: ``at(field="messages[3]")`` on an error at ``content`` gives
        ``messages[3].content``.
        """
        inner = self.field
        if field is not None and inner is not None:
            inner = f"{field}{inner}" if inner.startswith("[") else f"{field}.{inner}"
        return type(self)(
            self.reason,
            file=self.file or file,
            row=self.row if self.row is not None else row,
            field=inner if inner is not None else field,
            mend=self.mend,
        )


class FormatError(DataError):
    """A row does not have the shape that its format declares."""


class StoreError(DataError):
    """Episodes could not be read from or written to where they live."""


class EnvironmentFault(UnderstudyError):
    """An environment or its judge failed. This is never a failure of the agent that acted in it."""


class SandboxError(UnderstudyError):
    """The sandbox itself failed. What a program does inside it is never this error."""


class PolicyError(UnderstudyError):
    """A policy could not decide: the endpoint failed, the model could not be loaded, the reply was malformed."""


class CollectError(UnderstudyError):
    """Collecting cannot go on: episode after episode ends by a fault."""


class RenderError(UnderstudyError):
    """A tokenizer or chat template cannot be used, or a turn was refused and the policy is to fail."""


class TrainError(UnderstudyError):
    """Training cannot start or cannot go on."""


class CheckpointError(TrainError):
    """A checkpoint is missing, incomplete or does not fit the run."""


class MissingDependency(UnderstudyError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, *, needed_for: str, install: str) -> None:
        super().__init__(f"{needed_for} needs the package {package!r}: pip install {install}")
        self.package = package


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known word, or an empty string when nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        folded = {name.lower().replace("-", "_"): name for name in known}
        near = [folded[key] for key in (word.lower().replace("-", "_"),) if key in folded]
    return f" Did you mean {near[0]!r}?" if near else ""
