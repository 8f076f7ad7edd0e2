"""Does a text hold all of a message? A template that swallows part of a turn would train the model to leave it out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .refusal import RefusalCode, TurnRefused

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


def require_covered(message: Mapping[str, Any], target: str) -> None:
    """Refuse the turn unless `target` holds the message's content, reasoning, and the names and arguments of its calls.

    White space around a field may differ, and text inside JSON may be escaped as JSON escapes it.
    """
    content = _content_text(message)
    reasoning, answer = split_reasoning(content)
    for text in (answer, *_around_reasoning(content)):
        if not holds(target, text):
            raise TurnRefused(RefusalCode.DROPS_CONTENT, "the template does not print the content", text.strip()[:60])
    thoughts = message.get("reasoning_content")
    for thought in (reasoning, thoughts if isinstance(thoughts, str) else ""):
        if not holds(target, thought):
            reason = "the template does not print the reasoning"
            raise TurnRefused(RefusalCode.DROPS_REASONING, reason, thought.strip()[:60])
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function["arguments"]
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        for leaf in (function["name"], *_leaves(arguments)):
            if not _holds_leaf(target, leaf):
                reason = f"the template does not print the call of {function['name']!r}"
                raise TurnRefused(RefusalCode.DROPS_TOOL_CALL, reason, str(leaf)[:60])


def split_reasoning(content: str) -> tuple[str, str]:
    """Return (reasoning, answer) of a content that may hold ``<think>…</think>``; no reasoning without a close."""
    if THINK_CLOSE not in content:
        return "", content
    head, answer = content.split(THINK_CLOSE)[0], content.split(THINK_CLOSE)[-1]
    return head.split(THINK_OPEN)[-1], answer


def _around_reasoning(content: str) -> list[str]:
    """Return what stands before the first reasoning of a content, and what of it lies between the first and the answer:
    text and further reasonings, which templates that take a content apart leave out."""
    first, *more = content.split(THINK_CLOSE)[:-1] or [""]
    pieces = first.split(THINK_OPEN)[:-1]
    return pieces + [piece for part in more for piece in part.split(THINK_OPEN)]


def holds(text: str, part: str) -> bool:
    """True when `text` holds `part`, stripped, as it is or as JSON escapes it."""
    part = part.strip()
    return not part or part in text or _escaped(part, False) in text or _escaped(part, True) in text


def _escaped(part: str, ensure_ascii: bool) -> str:
    return json.dumps(part, ensure_ascii=ensure_ascii)[1:-1]


def _holds_leaf(text: str, leaf: Any) -> bool:
    if isinstance(leaf, str):
        return holds(text, leaf)
    return json.dumps(leaf) in text or str(leaf) in text


def _content_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments


def _leaves(value: Any) -> Iterator[Any]:
    """Yield keys and scalar values, depth first."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
