"""Stop tokens: the tokens with which a model ends its turn.

They come from the user's override, else from the generation config, else from the template itself: the first added
token that it writes after the content of a probing assistant message. A turn's target ends with one of them; what a
template writes after it (a line feed, the end of text) is the server's and is never trained.
"""

from __future__ import annotations

import re
from typing import Any

from .refusal import RefusalCode, TurnRefused
from .segments import SegmentTokenizer
from .template import ChatTemplate

_PROBE = "qzprobeq"


class StopTokens:
    """The stop tokens of a model as texts, and where they end a turn."""

    def __init__(self, texts: tuple[str, ...], segments: SegmentTokenizer) -> None:
        self.texts = texts
        controls = sorted({*texts, *segments.added}, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, controls))) if controls else None

    def find(self, text: str, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """Return the (start, stop) of every stop token that lies within the given characters of `text`.

        Control tokens are matched leftmost and longest, so a stop token inside a longer control token is not one.
        """
        if self._control_pattern is None:
            return []
        found = self._control_pattern.finditer(text, start, len(text) if stop is None else stop)
        return [match.span() for match in found if match.group() in self.texts]

    def cut(self, text: str) -> str | None:
        """Return `text` through the stop token that ends it, or None when it holds no stop token.

        Raises:
            TurnRefused: other text follows the last stop token.
        """
        stops = self.find(text)
        if not stops:
            return None
        end = None
        for _, after in reversed(stops):
            if self._without_controls(text[after:]).strip():
                break
            end = after
        if end is None:
            raise TurnRefused(
                RefusalCode.TEXT_AFTER_STOP, "text follows the stop token", text[stops[-1][0] : stops[-1][0] + 70]
            )
        return text[:end]

    def _without_controls(self, text: str) -> str:
        return self._control_pattern.sub("", text) if self._control_pattern else text


def derive_stop_tokens(template: ChatTemplate, segments: SegmentTokenizer) -> tuple[str, ...]:
    """Return the first added tokens that the template writes after an assistant message, at the end and before a user.

    Empty when the template writes none.
    """
    if segments.added_pattern is None:
        return ()
    user: dict[str, Any] = {"role": "user", "content": "qzuserq"}
    conversation: list[dict[str, Any]] = [user, {"role": "assistant", "content": _PROBE}]
    found: dict[str, None] = {}
    for messages in (conversation, [*conversation, user]):
        text = _render_probe(template, messages)
        at = text.rfind(_PROBE)
        token = segments.added_pattern.search(text, at + len(_PROBE)) if at >= 0 else None
        if token:
            found[token.group()] = None
    return tuple(found)


def _render_probe(template: ChatTemplate, messages: list[dict[str, Any]]) -> str:
    """Render without tools or, for templates that insist on them, with one; empty when the template raises on both."""
    tool = {"type": "function", "function": {"name": "qztoolq", "description": "qz", "parameters": {"type": "object"}}}
    for tools in (None, [tool]):
        try:
            return template.render(messages, tools, add_generation_prompt=False)
        except TurnRefused:
            continue
    return ""
