"""Alpaca rows: one instruction, one answer, and earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from understudy.errors import FormatError
from understudy.types import JSON, Episode, Message, tools_from_openai, turns_from_messages
from understudy.types.fields import kind, optional_text

from .base import Format
from .episode_fields import take_fields, with_tools
from .images import place_images, take_images


@dataclass(frozen=True, slots=True)
class AlpacaColumns:
    """The names of a row's columns. All but `response` may be absent from a row, and are not used when empty."""

    prompt: str = "instruction"
    query: str = "input"
    response: str = "output"
    history: str = "history"
    system: str = "system"
    tools: str = "tools"
    images: str = "images"


class Alpaca(Format):
    """``{"instruction", "input"?, "output", "system"?, "history": [[user, assistant], …]?}``; read only.

    The user message is the instruction, and the input after a line end. All answers are trained, earlier ones too.
    """

    name: ClassVar[str] = "alpaca"
    summary: ClassVar[str] = 'Alpaca (read only): {"instruction", "input"?, "output", "system"?, "history"?}'

    def __init__(self, columns: AlpacaColumns | None = None, folder: str | None = None) -> None:
        """Take other names for columns, and the folder that paths of images start from."""
        self.columns = columns or AlpacaColumns()
        self.folder = folder

    def match(self, row: Mapping[str, JSON]) -> str | None:
        keys = (self.columns.prompt, self.columns.response)
        if not all(isinstance(row.get(key), str) for key in keys):
            return None
        return f"{keys[0]!r} and {keys[1]!r} hold text"

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        names = self.columns
        system = optional_text(rest.pop(names.system, None), names.system)
        messages = [Message("system", system)] if system else []
        messages += _rounds(rest.pop(names.history, None), names.history)
        asked = [optional_text(rest.pop(name, None), name) for name in (names.prompt, names.query)]
        answer = optional_text(rest.pop(names.response, None), names.response)
        if answer is None or not any(asked):
            missing = names.response if answer is None else names.prompt
            raise FormatError("the text is missing", field=missing, mend="leave the row out")
        messages += [Message("user", "\n".join(filter(None, asked))), Message("assistant", answer)]
        messages = place_images(messages, take_images(rest, names.images, self.folder), names.images)
        tools = tools_from_openai(rest.pop(names.tools, None), names.tools)
        return [take_fields(rest, id).build(with_tools(turns_from_messages(messages), tools))]


def _rounds(value: JSON, field: str) -> list[Message]:
    """Return the messages of earlier rounds, each a pair of texts."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise FormatError(f"the history is a list of pairs, not {kind(value)}", field=field)
    out: list[Message] = []
    for i, pair in enumerate(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise FormatError("a round is a pair of texts", field=f"{field}[{i}]")
        out += [Message("user", pair[0]), Message("assistant", pair[1])]
    return out
