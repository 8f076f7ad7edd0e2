"""The server profile: what a model's server does to messages before and around the chat template.

Two servers with different profiles compute different tokens from equal messages, so the profile is part of the
fingerprint of everything that is rendered with it. The defaults are vLLM's: arguments parsed to objects, null content
as an empty text, the text parts of a content list joined by a line feed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from understudy.config import ConfigModel
from understudy.types import ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCall, tools_to_openai

from .refusal import RefusalCode, TurnRefused


class ServerProfile(ConfigModel):
    """How the server that the model will be played on prepares a request."""

    template_arguments: dict[str, Any] = Field(default_factory=dict)
    """Further variables of the chat template, such as ``enable_thinking: false``."""

    clock: str = "2025-01-01T12:00:00"
    """The local time that a template sees (`strftime_now`), ISO 8601. Pinned, so that rendering is repeatable."""

    tool_arguments: Literal["auto", "object", "text"] = "auto"
    """Whether templates get the arguments of calls as objects or as JSON text. ``auto`` asks the template: objects
    where it prints them, text where it does not."""

    null_content: Literal["empty", "null", "absent"] = "empty"
    """What absent content becomes: an empty text, null, or no key at all."""

    content_parts: Literal["join", "keep"] = "join"
    """Whether the text parts of a content list are joined by a line feed or kept as a list."""

    thinking: Literal["auto", "fixed"] = "auto"
    """With ``auto`` a turn with reasoning may switch a template's thinking flag on, and one without may switch it off,
    where the template leaves no other way; never against `template_arguments`. With ``fixed`` it never does."""

    think_close: str | None = None
    """The text that ends reasoning after a prompt that opens it, for templates that cannot write reasoning back
    themselves (such as DeepSeek-R1's). Without it such turns are refused."""

    stop_tokens: tuple[str, ...] | None = None
    """The tokens that end a turn, in place of those of the model's generation config."""

    def canonical(self) -> str:
        """Return the profile as sorted JSON text, for fingerprints."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    def prepare(self, message: Message) -> dict[str, Any]:
        """Return the dict that the template gets for `message`.

        Raises:
            TurnRefused: the message holds images, two different reasonings, or arguments that are not JSON where
                objects are due.
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
        reasoning, together = message.reasoning_content, "\n".join(thoughts)
        if reasoning is None and thoughts:
            reasoning = together
        elif reasoning is not None and together.strip() not in ("", reasoning.strip()):
            reason = f"a {message.role} message has two reasonings, and a template gets one"
            raise TurnRefused(RefusalCode.DROPS_REASONING, reason, together.strip()[:60])
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


def prepare_tools(tools: Sequence[Tool]) -> list[dict[str, Any]] | None:
    """Return what the template gets as ``tools``: None when there are none.

    Raises:
        TurnRefused: a text in them is not valid Unicode.
    """
    given = tools_to_openai(tools)
    if given is not None:
        _refuse_surrogates(given)
    return given


def _refuse_surrogates(prepared: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Refuse text that UTF-8 cannot hold, wherever it stands in a prepared message or in tools."""
    try:
        text = "\n".join(prepared.values() if isinstance(prepared, dict) else prepared)  # type: ignore[arg-type]
    except TypeError:  # not only texts
        text = _as_text(prepared)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        excerpt = text[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
        raise TurnRefused(RefusalCode.LONE_SURROGATE, "the text is not valid Unicode", excerpt) from None


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        raise TurnRefused(RefusalCode.ARGUMENTS_NOT_JSON, "a value is nested too deeply") from None
