"""Rows of an input and an output, as trajectory-following scripts have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from understudy.types import JSON, Episode, tools_from_openai, tools_to_openai

from .base import Format
from .context_split import read_half, read_halves, write_halves
from .episode_fields import put_fields, take_fields, with_tools
from .rows import dump_row


class InputOutput(Format):
    """``{"input": text or messages, "output": text or messages}``. Only assistant messages of the output are trained.

    ``input`` is plain text (one user message) or messages, as an array or as JSON text of one. A message of the output
    without a role is from the assistant.
    """

    name: ClassVar[str] = "input_output"
    summary: ClassVar[str] = '{"input": text or messages, "output": text or messages}; the output is trained'

    def match(self, row: Mapping[str, JSON]) -> str | None:
        halves = row.get("input"), row.get("output")
        if "instruction" in row or not all(isinstance(half, str | list) for half in halves):
            return None
        return "'input' and 'output' hold text or messages"

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        given = rest.pop("input", None)
        messages = _messages_in(given) if isinstance(given, str) else None
        context = read_half(given if messages is None else messages, "input", text_role="user", default_role=None)
        target = read_half(rest.pop("output", None), "output", text_role="assistant", default_role="assistant")
        tools = tools_from_openai(rest.pop("tools", None))
        return [take_fields(rest, id).build(with_tools(read_halves(context, target), tools))]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        trajectory = episode.trajectories[0]
        context, target = write_halves(trajectory)
        row: dict[str, JSON] = {"input": _plain_text(context) or dump_row(context).decode(), "output": target}
        tools = tools_to_openai(trajectory.tools())
        return row | ({"tools": tools} if tools else {}) | put_fields(episode)


def _messages_in(text: str) -> list[JSON] | None:
    """Return the messages of which `text` is the JSON; None when it is plain text (that may begin with a bracket)."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    is_messages = isinstance(value, list) and all(isinstance(one, dict) and "content" in one for one in value)
    return value if is_messages else None


def _plain_text(context: list[dict[str, JSON]]) -> str | None:
    """Return the text of a context that is one plain user message and would be read back as such."""
    if len(context) != 1 or context[0].keys() != {"role", "content"} or context[0]["role"] != "user":
        return None
    text = context[0]["content"]
    return text if isinstance(text, str) and _messages_in(text) is None else None
