"""Messages, tools and tool calls, as the OpenAI chat format has them.

Values are kept as they were received: the arguments of a tool call stay text when they came as text, because a server
shows a model the text and not our idea of it. `Message.to_openai` gives the dict that an endpoint takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

JSON = Any
"""A value that JSON can hold: None, bool, int, float, str, list or dict of these."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text in a message whose content is a list of parts."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by http(s) URL, ``data:`` URL or path; `detail` as in the OpenAI format."""

    url: str
    detail: str | None = None
    type: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """A piece of reasoning that stands between other parts of a message."""

    text: str
    type: Literal["reasoning"] = "reasoning"


Part = TextPart | ImagePart | ReasoningPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. `arguments` is JSON text or an object, whichever the source had."""

    name: str
    arguments: str | dict[str, JSON]
    id: str | None = None

    def parsed_arguments(self) -> dict[str, JSON]:
        """Return the arguments as an object.

        Raises:
            ValueError: the text is not JSON, is nested too deeply, or is not an object.
        """
        if isinstance(self.arguments, dict):
            return self.arguments
        try:
            value = json.loads(self.arguments) if self.arguments.strip() else {}
        except RecursionError:
            raise ValueError("arguments are nested too deeply") from None
        if not isinstance(value, dict):
            raise ValueError(f"arguments are {type(value).__name__}, not an object")
        return value

    def arguments_text(self) -> str:
        """Return the arguments as JSON text; text that came as text is returned verbatim."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `content` is text, parts, or None where the message has none (an assistant message that only calls tools).
    `extra` holds the source's other keys; it is stored and never shown to a model.
    """

    role: str
    content: str | tuple[Part, ...] | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    extra: dict[str, JSON] = field(default_factory=dict)

    def text(self) -> str:
        """Return the content's text; parts are joined without a separator, images and reasoning are left out."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    def to_openai(self) -> dict[str, JSON]:
        """Return the OpenAI chat dict. Absent fields are left out, except `content`, which is always there."""
        out: dict[str, JSON] = {"role": self.role, "content": self.content}
        if isinstance(self.content, tuple):
            out["content"] = [_part_to_openai(part) for part in self.content]
        if self.reasoning_content is not None:
            out["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            out["tool_calls"] = [_call_to_openai(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            out["name"] = self.name
        return out


def _part_to_openai(part: Part) -> dict[str, JSON]:
    if isinstance(part, ImagePart):
        image = {"url": part.url} | ({"detail": part.detail} if part.detail else {})
        return {"type": "image_url", "image_url": image}
    return {"type": part.type, "text": part.text}


def _call_to_openai(call: ToolCall) -> dict[str, JSON]:
    out: dict[str, JSON] = {"id": call.id} if call.id is not None else {}
    return out | {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call: the OpenAI dict ``{"type": "function", "function": {…}}``.

    The dict is kept whole and in order, because templates print it and the model saw that very text.
    """

    definition: dict[str, JSON]

    @classmethod
    def from_openai(cls, value: Mapping[str, JSON]) -> Tool:
        """Take a wrapped (``{"type", "function"}``) or a flat (``{"name", "parameters", …}``) tool.

        Raises:
            ValueError: it has no name.
        """
        inner = value.get("function", value)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise ValueError("a tool needs a name (function.name)")
        if "function" in value:
            return cls(dict(value) if "type" in value else {"type": "function", **value})
        return cls({"type": "function", "function": {k: v for k, v in value.items() if k != "type"}})

    @property
    def name(self) -> str:
        return str(self.definition["function"]["name"])

    @property
    def description(self) -> str:
        return str(self.definition["function"].get("description") or "")

    @property
    def parameters(self) -> dict[str, JSON]:
        """The JSON schema of the arguments; an empty object schema where the tool declares none."""
        parameters = self.definition["function"].get("parameters")
        return parameters or {"type": "object", "properties": {}}


def tools_to_openai(tools: Sequence[Tool]) -> list[dict[str, JSON]] | None:
    """Return what a chat template takes as ``tools``: None when there are none."""
    return [tool.definition for tool in tools] or None
