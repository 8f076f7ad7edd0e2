"""OpenAI chat rows, as PettingLLMs, AgentRL, LLaMA-Factory v1 and most fine-tuning services have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from understudy.errors import FormatError
from understudy.types import (
    JSON,
    Episode,
    Turn,
    message_to_row,
    messages_from_openai,
    tools_from_openai,
    tools_to_openai,
    turns_from_messages,
)

from .base import Format
from .episode_fields import put_fields, take_fields, with_tools
from .linear import weighted_messages

RECORD_DATA_KEYS = ("scores", "advantages", "created_at_step", "logprobs", "record_id")


class Messages(Format):
    """``{"messages": […], "tools": […]?, "metadata": {…}?}``."""

    name: ClassVar[str] = "messages"
    summary: ClassVar[str] = 'OpenAI chat: {"messages": […], "tools": […]?, "metadata": {…}?}'

    def match(self, row: Mapping[str, JSON]) -> str | None:
        if any(key in row for key in RECORD_DATA_KEYS):
            return None
        return "'messages' holds messages" if holds_messages(row.get("messages")) else None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        turns = read_conversation(rest.pop("messages", None), "messages")
        tools = tools_from_openai(rest.pop("tools", None) or rest.pop("functions", None))
        return [take_fields(rest, id).build(with_tools(turns, tools))]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        return write_conversation(episode) | put_fields(episode)


def read_conversation(value: JSON, field: str) -> tuple[Turn, ...]:
    """Read messages into turns, weighted by their own flags.

    Raises:
        FormatError: there is none, or one has no clear meaning.
    """
    if value is None:
        raise FormatError("the messages are missing", field=field, mend=f"add a list under {field!r}")
    messages = messages_from_openai(value, field)
    if not messages:
        raise FormatError("there is no message", field=field, mend="leave the row out")
    return turns_from_messages(messages)


def write_conversation(episode: Episode) -> dict[str, JSON]:
    """Return ``messages`` and, when there are any, ``tools`` of an episode with one linear trajectory."""
    trajectory = episode.trajectories[0]
    row: dict[str, JSON] = {"messages": [message_to_row(*pair) for pair in weighted_messages(trajectory)]}
    tools = tools_to_openai(trajectory.tools())
    return row | {"tools": tools} if tools else row


def holds_messages(value: JSON) -> bool:
    """Say whether a value looks like a list of messages, or like JSON text of one."""
    if isinstance(value, str):
        return value.lstrip().startswith("[")
    if not isinstance(value, list) or not value:
        return False
    return isinstance(value[0], dict) and "role" in value[0]
