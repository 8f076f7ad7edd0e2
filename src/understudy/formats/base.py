"""What every format is: a name, a way to recognise a row, and two ways between rows and episodes.

Invariant: what `Format.encode` reports as lost is exactly what decoding its rows does not give back. It is measured,
not declared: every row that is written is read again and compared with the episode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar

from understudy import registry
from understudy.errors import FormatError
from understudy.types import JSON, Episode
from understudy.types.fields import kind

from .linear import differences, linear_pieces


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of one episode, and the dotted names of what they do not hold (``trajectories.turns.sampled``)."""

    rows: list[dict[str, JSON]]
    lost: tuple[str, ...] = ()


class Format(ABC):
    """One way to write episodes as rows.

    A format implements `match` and `read_row`, and `write_row` when it can also be written.

    Attributes:
        name: as in the table of formats.
        summary: one line: what a row looks like.
        linear: a row holds one conversation of one agent. Other episodes are written as several rows.
        envelope: the key of the row's list of items, where a ``.json`` file is one row that holds the items of all.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    linear: ClassVar[bool] = True
    envelope: ClassVar[str | None] = None

    @abstractmethod
    def match(self, row: Mapping[str, JSON]) -> str | None:
        """Say why a row looks like this format, in a few words; None when it does not. Cheap, and never raises."""

    @abstractmethod
    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        """Return the episodes of a row; `id` is for those that name none.

        Raises:
            FormatError: with the field that is wrong.
        """

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        """Return the row of an episode (of one linear piece where the format is linear)."""
        raise FormatError(f"the format {self.name!r} can only be read", mend="write another format")

    def decode(self, row: JSON, *, id: str) -> list[Episode]:
        """Return the episodes that a row holds.

        Args:
            id: the id of an episode that names none; further ones of the same row append ``/1``, ``/2``, …

        Raises:
            FormatError: the row does not have the shape of this format.
        """
        if not isinstance(row, Mapping):
            raise FormatError(f"a row is an object, not {kind(row)}")
        try:
            return self.read_row(row, id)
        except RecursionError:
            raise FormatError("the row is nested too deeply") from None

    def encode(self, episode: Episode) -> Encoded:
        """Return the rows of an episode and what they do not hold.

        Raises:
            FormatError: this format can only be read, or the episode is none that it can hold (a message without role).
        """
        pieces, lost = linear_pieces(episode) if self.linear else ([episode], set())
        rows = []
        for piece in pieces:
            row = self.write_row(piece)
            try:
                back = self.decode(row, id="")
                lost |= differences(piece, back[0]) if len(back) == 1 else {"trajectories"}
            except FormatError as error:
                reason = f"the episode {episode.id!r} cannot be written as {self.name}: {error.reason}"
                raise FormatError(reason, field=error.field, mend=error.mend) from error
            except RecursionError:
                raise FormatError(f"the episode {episode.id!r} is nested too deeply") from None
            rows.append(row)
        return Encoded(rows, tuple(sorted(lost)))


def get_format(name: str) -> Format:
    """Return the format called `name`, a user's ``package.module:Class``, or a mapping (see `formats.mapping`).

    Raises:
        ConfigError: the name is unknown, or the mapping is wrong.
    """
    from .mapping import names_mapping, open_mapping

    if names_mapping(name):
        return open_mapping(name)
    component: Any = registry.load("formats", name)
    if isinstance(component, FunctionType):
        return open_mapping(name)
    found = component() if isinstance(component, type) else component
    assert isinstance(found, Format), f"{name} is no Format"
    return found
