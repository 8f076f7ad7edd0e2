"""Episodes out of calls: each call of a model holds a whole conversation, and says nothing of the calls before it.

A call belongs behind the turn whose conversation, with the answer, it begins with; where there is none it begins a new
context. So a chat becomes a chain, a conversation that was taken up again from an earlier point a fork, and one that
was rewritten or compacted a root of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.types import JSON, Message, SampledTokens, Tool, Turn


@dataclass(frozen=True, slots=True)
class Call:
    """What a model was asked, and one answer."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    action: Message
    sampled: SampledTokens | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)


def prefixes(messages: Sequence[Message], tools: Sequence[Tool]) -> list[str]:
    """Return a digest of each beginning of a conversation: of no message, of one, …, of all."""
    digest = hashlib.sha256(json.dumps([tool.definition for tool in tools], sort_keys=True, default=str).encode())
    found = [digest.hexdigest()]
    for message in messages:
        digest.update(json.dumps(_as_repeated(message), sort_keys=True, default=str).encode())
        found.append(digest.hexdigest())
    return found


class Conversations:
    """The calls of one episode as turns.

    Args:
        turns: those that are there already.
    """

    def __init__(self, turns: Sequence[Turn] = ()) -> None:
        self.turns: list[Turn] = []
        self._ends: dict[str, int] = {}
        whole: list[tuple[tuple[Message, ...], tuple[Tool, ...]]] = []
        for turn in turns:
            before, tools = whole[turn.parent] if turn.parent is not None else ((), turn.tools)
            messages = (*before, *turn.observation)
            whole.append(((*messages, *((turn.action,) if turn.action else ())), tools))
            self._append(turn, whole[-1][0], tools)

    def add(self, call: Call) -> str:
        """Add a call behind the turn that it goes on from; return the digest of what comes of it."""
        known = prefixes(call.messages, call.tools)
        start = max((k for k, digest in enumerate(known) if k and digest in self._ends), default=0)
        parent = self._ends[known[start]] if start else None
        turn = Turn(
            parent=parent,
            observation=call.messages[start:],
            action=call.action,
            tools=call.tools if parent is None else (),
            sampled=call.sampled,
            annotations=call.annotations,
        )
        return self._append(turn, (*call.messages, call.action), call.tools)

    def _append(self, turn: Turn, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        end = prefixes(messages, tools)[-1]
        self._ends[end] = len(self.turns)
        self.turns.append(turn)
        return end


def _as_repeated(message: Message) -> list[Any]:
    """Return what a program gives back of a message in its next call: it may drop reasoning, and write JSON anew."""
    calls = []
    for call in message.tool_calls:
        try:
            calls.append([call.name, call.parsed_arguments(), call.id])
        except ValueError:
            calls.append([call.name, call.arguments, call.id])
    return [message.role, message.text(), calls, message.tool_call_id]
