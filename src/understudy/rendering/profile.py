"""The server profile: what a model's server does to messages before and around the chat template.

Two servers with different profiles compute different tokens from equal messages, so the profile is part of the
fingerprint of everything that is rendered with it. The defaults are vLLM's: arguments parsed to objects, null content
as an empty text, the text parts of a content list joined by a line feed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from understudy.types import JSON, ImagePart, Message, ReasoningPart, TextPart, ToolCall

from .refusal import RefusalCode, TurnRefused


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """How the server that the model will be played on prepares a request.

    Args:
        template_arguments: further variables of the template, such as ``{"enable_thinking": False}``.
        clock: the local time that `strftime_now` in a template sees, ISO 8601. Pinned, so that rendering is repeatable.
        tool_arguments: whether templates receive the arguments of calls as objects or as JSON text. ``auto`` asks the
            template: objects where it prints them, text where it raises on objects.
        null_content: what absent content becomes: ``empty`` text, ``null``, or the key left out (``absent``).
        content_parts: whether the text parts of a list are joined by a line feed (``join``) or kept as a list.
        thinking: with ``auto`` a turn with reasoning may switch a template's thinking flag on and one without may
            switch it off, where the template leaves no other way; never against `template_arguments`. ``fixed`` never.
        think_close: the text that ends reasoning after a prompt that opens it, for templates that cannot write
            reasoning back themselves (such as DeepSeek-R1's). None refuses such turns.
        stop_tokens: overrides the stop tokens of the generation config.
    """

    template_arguments: Mapping[str, JSON] = field(default_factory=dict)
    clock: str = "2025-01-01T12:00:00"
    tool_arguments: Literal["auto", "object", "text"] = "auto"
    null_content: Literal["empty", "null", "absent"] = "empty"
    content_parts: Literal["join", "keep"] = "join"
    thinking: Literal["auto", "fixed"] = "auto"
    think_close: str | None = None
    stop_tokens: tuple[str, ...] | None = None

    def canonical(self) -> str:
        """Return the profile as sorted JSON text, for fingerprints."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    def prepare(self, message: Message) -> dict[str, Any]:
        """Return the dict that the template gets for `message`.

        Raises:
            TurnRefused: the message holds images, or arguments that are not JSON where objects are due.
        """
        content, reasoning = self._content(message)
        out: dict[str, Any] = {"role": message.role}
        if content is not None or self.null_content == "null":
            out["content"] = content
        elif self.null_content == "empty":
            out["content"] = ""
        if reasoning is not None:
            # Templates read one of these three names; transformers fills all of them too.
            out["reasoning_content"] = out["thinking"] = reasoning
        if message.tool_calls:
            out["tool_calls"] = [self._call(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            out["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            out["name"] = message.name
        _refuse_surrogates(out)
        return out

    def _content(self, message: Message) -> tuple[Any, str | None]:
        if message.content is None or isinstance(message.content, str):
            return message.content, message.reasoning_content
        if any(isinstance(part, ImagePart) for part in message.content):
            raise TurnRefused(RefusalCode.HAS_IMAGES, f"a {message.role} message holds images")
        texts = [part.text for part in message.content if isinstance(part, TextPart)]
        thoughts = [part.text for part in message.content if isinstance(part, ReasoningPart)]
        reasoning = message.reasoning_content
        if reasoning is None and thoughts:
            reasoning = "\n".join(thoughts)
        if self.content_parts == "keep":
            return [{"type": "text", "text": text} for text in texts], reasoning
        return "\n".join(texts), reasoning

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments: Any = call.arguments
        if self.tool_arguments == "text":
            arguments = call.arguments_text()
        else:
            try:
                arguments = call.parsed_arguments()
            except ValueError as error:
                reason = f"the arguments of a call of {call.name!r} are not a JSON object: {error}"
                raise TurnRefused(RefusalCode.ARGUMENTS_NOT_JSON, reason, call.arguments_text()[:80]) from None
        out: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
        return ({"id": call.id} if call.id is not None else {}) | out


def _refuse_surrogates(value: Any) -> None:
    """Refuse text that UTF-8 cannot hold, wherever it stands in the prepared message."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            excerpt = value[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
            raise TurnRefused(RefusalCode.LONE_SURROGATE, "the text is not valid Unicode", excerpt) from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
