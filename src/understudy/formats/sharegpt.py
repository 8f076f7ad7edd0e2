"""ShareGPT rows, as UserRL, AgentGym and LLaMA-Factory have them.

A function call is an entry of its own: JSON of one call or of a list, ``{"name": …, "arguments": …}``. An entry ``gpt``
that stands right before it is the text of the same message. Written arguments are objects, as LLaMA-Factory wants them.
Column and tag names can be others, as a ``dataset_info.json`` entry declares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from understudy.errors import FormatError
from understudy.types import (
    JSON,
    Episode,
    Message,
    ToolCall,
    message_to_row,
    tools_from_openai,
    tools_to_openai,
    turns_from_messages,
)
from understudy.types.fields import join, kind, parse_json
from understudy.types.openai import message_from_openai

from .base import Format
from .episode_fields import put_fields, take_fields, with_tools
from .images import lift_images, place_images, take_images
from .linear import weighted_messages
from .rows import dump_row

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_THOUGHT_END = "</think>"


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a row's columns. All but `messages` may be absent from a row, and are not used when empty."""

    messages: str = "conversations"
    system: str = "system"
    tools: str = "tools"
    images: str = "images"


@dataclass(frozen=True, slots=True)
class Tags:
    """The names within an entry: the keys of its role and content, and the roles."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    observation_tag: str = "observation"
    function_tag: str = "function_call"
    system_tag: str = "system"


class ShareGPT(Format):
    """``{"conversations": [{"from", "value"}], "system": text?, "tools": JSON text?}``."""

    name: ClassVar[str] = "sharegpt"
    summary: ClassVar[str] = 'ShareGPT: {"conversations": [{"from", "value"}], "system"?, "tools": JSON text?}'

    def __init__(self, columns: Columns | None = None, tags: Tags | None = None, folder: str | None = None) -> None:
        """Take other names for columns and tags, and the folder that paths of images start from."""
        self.columns = columns or Columns()
        self.tags = tags or Tags()
        self.folder = folder
        self._roles = _ROLES | {
            self.tags.user_tag: "user",
            self.tags.assistant_tag: "assistant",
            self.tags.observation_tag: "tool",
            self.tags.system_tag: "system",
        }

    def match(self, row: Mapping[str, JSON]) -> str | None:
        entries = row.get(self.columns.messages)
        if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
            return None
        keys = (self.tags.role_tag, self.tags.content_tag)
        if not all(key in entries[0] for key in keys):
            return None
        return f"{self.columns.messages!r} holds objects with {keys[0]!r} and {keys[1]!r}"

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        field = self.columns.messages
        entries = rest.pop(field, None)
        if not isinstance(entries, list | tuple):
            raise FormatError(f"the conversation is a list, not {kind(entries)}", field=field)
        if not entries:
            raise FormatError("there is no message", field=field, mend="leave the row out")
        messages: list[Message] = []
        for i, entry in enumerate(entries):
            message = self._message(entry, f"{field}[{i}]")
            if self._continues(entries, i):
                message = replace(message, content=messages.pop().content)
            messages.append(message)
        messages = self._with_system(messages, rest.pop(self.columns.system, None))
        tools = tools_from_openai(rest.pop(self.columns.tools, None), self.columns.tools)
        messages = place_images(messages, take_images(rest, self.columns.images, self.folder), self.columns.images)
        return [take_fields(rest, id).build(with_tools(turns_from_messages(messages), tools))]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        trajectory = episode.trajectories[0]
        entries: list[JSON] = []
        images: list[str] = []
        for message, weight in weighted_messages(trajectory):
            lifted, found = lift_images(message)
            images.extend(found)
            entries.extend(self._entries(lifted, weight))
        row: dict[str, JSON] = {self.columns.messages: entries}
        tools = tools_to_openai(trajectory.tools())
        if tools:
            row[self.columns.tools] = dump_row(tools).decode()
        if images:
            row[self.columns.images] = images
        return row | put_fields(episode)

    def _message(self, entry: JSON, field: str) -> Message:
        if not isinstance(entry, Mapping):
            raise FormatError(f"an entry is an object, not {kind(entry)}", field=field)
        rest = dict(entry)
        tag = rest.pop(self.tags.role_tag, None)
        if not isinstance(tag, str) or not tag:
            raise FormatError("an entry needs a role", field=join(field, self.tags.role_tag))
        value = rest.pop(self.tags.content_tag, None)
        is_call = tag == self.tags.function_tag
        rest["role"] = "assistant" if is_call else self._roles.get(tag, tag)
        if is_call:
            rest["content"], rest["tool_calls"] = _calls(value, join(field, self.tags.content_tag))
        else:
            rest["content"] = value
        try:
            return message_from_openai(rest, field)
        except FormatError as error:
            place = (error.field or "").replace(join(field, "content"), join(field, self.tags.content_tag), 1)
            raise FormatError(error.reason, field=place, mend=error.mend) from None

    def _continues(self, entries: Sequence[JSON], index: int) -> bool:
        """Say whether an entry is the calls of the message whose text the entry before it is."""
        tags = [entry.get(self.tags.role_tag) for entry in entries[max(index - 1, 0) : index + 1]]
        return tags == [self.tags.assistant_tag, self.tags.function_tag]

    def _with_system(self, messages: list[Message], system: JSON) -> list[Message]:
        """Put the system column first. It may repeat a system message of the conversation, but not contradict it."""
        if system is None or system == "":
            return messages
        if not isinstance(system, str):
            raise FormatError(f"the system prompt is text, not {kind(system)}", field=self.columns.system)
        if messages[0].role != "system":
            return [Message("system", system), *messages]
        if messages[0].content != system:
            mend = "keep one of them"
            raise FormatError("the conversation has another system prompt", field=self.columns.system, mend=mend)
        return messages

    def _entries(self, message: Message, weight: float | None) -> list[dict[str, JSON]]:
        """Return the one or two entries of a message, with those of its keys that the source had."""
        tags = self.tags
        role = {
            "user": tags.user_tag,
            "assistant": tags.assistant_tag,
            "tool": tags.observation_tag,
            "system": tags.system_tag,
        }.get(message.role, message.role)
        own = message_to_row(Message(message.role, extra=message.extra), weight)
        extra = {key: value for key, value in own.items() if key not in ("role", "content")}
        text: dict[str, JSON] = {tags.role_tag: role, tags.content_tag: message.content}
        if not message.tool_calls:
            return [text | extra]
        calls = [{"name": call.name, "arguments": _as_object(call)} for call in message.tool_calls]
        value = dump_row(calls[0] if len(calls) == 1 else calls).decode()
        entry = {tags.role_tag: tags.function_tag, tags.content_tag: value} | extra
        return [entry] if message.content is None else [text, entry]


def _calls(value: JSON, field: str) -> tuple[str | None, list[JSON]]:
    """Return the thought before the calls, if any, and the calls."""
    thought = None
    if isinstance(value, str):
        head, end, tail = value.partition(_THOUGHT_END)
        if end and head.lstrip().startswith("<think>"):
            thought = value[: len(value) - len(tail.lstrip())]
            value = tail
        value = parse_json(value, field, "a function call")
    return thought, value if isinstance(value, list) else [value]


def _as_object(call: ToolCall) -> Any:
    try:
        return call.parsed_arguments()
    except ValueError:
        return call.arguments
