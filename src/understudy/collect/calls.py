"""Episodes out of calls: each call of a model holds a whole conversation, and says nothing of the calls before it.

A call belongs behind the turn with whose context, the answer included, it begins; where there is none it begins a new
context. So a chat becomes a chain, a conversation that was taken up again from an earlier point a fork, and one that
was rewritten or compacted, or whose reasoning was dropped, a root of its own: each turn has what its model was shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from understudy.types import JSON, ImagePart, Message, SampledTokens, Tool, Turn


@dataclass(frozen=True, slots=True)
class Call:
    """What a model was asked, and one answer."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    action: Message
    sampled: SampledTokens | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)


def spoken(messages: Sequence[Message]) -> list[str]:
    """Return a digest of each beginning of a conversation: of no message, of one, …, of all.

    Whoever goes on with a conversation repeats it, but may drop reasoning, and write JSON anew.
    """
    return _digests([], map(_spoken, messages))


def shown(messages: Sequence[Message], tools: Sequence[Tool]) -> list[str]:
    """Return a digest of each beginning of what a model is shown: tools and reasoning are a part of it."""
    return _digests([tool.definition for tool in tools], ([*_spoken(m), m.reasoning_content or ""] for m in messages))


def _digests(head: JSON, parts: Iterable[JSON]) -> list[str]:
    digest = hashlib.sha256(json.dumps(head, sort_keys=True, default=str).encode())
    found = [digest.hexdigest()]
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        found.append(digest.hexdigest())
    return found


class Conversations:
    """The calls of one episode as turns.

    Args:
        turns: those that are there already.

    Attributes:
        turns: all turns.
        ends: the digest of what was spoken up to each of them, its action included.
    """

    def __init__(self, turns: Sequence[Turn] = ()) -> None:
        self.turns: list[Turn] = []
        self.ends: list[str] = []
        self._by_end: dict[str, int] = {}
        whole: list[tuple[tuple[Message, ...], tuple[Tool, ...]]] = []
        for turn in turns:
            before, tools = whole[turn.parent] if turn.parent is not None else ((), turn.tools)
            messages = (*before, *turn.observation)
            whole.append(((*messages, *((turn.action,) if turn.action else ())), tools))
            self._append(turn, whole[-1][0], tools)

    def add(self, call: Call) -> None:
        """Add a call behind the turn that it goes on from."""
        known = shown(call.messages, call.tools)
        start = max((k for k, digest in enumerate(known) if k and digest in self._by_end), default=0)
        parent = self._by_end[known[start]] if start else None
        turn = Turn(
            parent=parent,
            observation=call.messages[start:],
            action=call.action,
            tools=call.tools if parent is None else (),
            sampled=call.sampled,
            annotations=call.annotations,
        )
        self._append(turn, (*call.messages, call.action), call.tools)

    def _append(self, turn: Turn, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        self._by_end[shown(messages, tools)[-1]] = len(self.turns)
        self.turns.append(turn)
        self.ends.append(spoken(messages)[-1])


def _spoken(message: Message) -> list[JSON]:
    """Return what stands in a message: no reasoning, and arguments as what they mean."""
    calls = []
    for call in message.tool_calls:
        try:
            calls.append([call.name, call.parsed_arguments(), call.id])
        except ValueError:
            calls.append([call.name, call.arguments, call.id])
    content = message.content if isinstance(message.content, tuple) else ()
    images = [[part.url, part.detail] for part in content if isinstance(part, ImagePart)]
    return [message.role, message.name, message.text(), images, calls, message.tool_call_id]
