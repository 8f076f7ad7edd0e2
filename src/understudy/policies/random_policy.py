"""The random policy: acts that the rules allow, chosen blindly. It shows what success is worth by luck alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from understudy.types import JSON, Message, ToolCall

from .base import Action, Context, Policy, with_call_ids

MAX_ITEMS = 3
SMALLEST, LARGEST = -100, 100


class RandomPolicy(Policy):
    """Picks one of the legal actions; else calls any tool with arguments that fit its schema, or says something.

    Words are taken from the conversation, so that names and ids come up.

    Args:
        only_calls: say nothing where there are tools: for walks that are to be learnt from.
    """

    name = "random"

    def __init__(self, *, only_calls: bool = False) -> None:
        self._only_calls = only_calls

    def identity(self) -> JSON:
        """Name it, and say so where it only calls tools."""
        return {"name": self.name} | ({"only_calls": True} if self._only_calls else {})

    async def act(self, context: Context) -> Action:
        """Choose."""
        rng = random.Random(context.seed)
        legal = context.observation.legal_actions
        if legal:
            return Action(Message("assistant", rng.choice(legal)))
        words = [word for message in context.messages for word in re.findall(r"\w+", message.text())] or ["yes"]
        speech = () if self._only_calls and context.tools else (None,)
        tool = rng.choice([*speech, *context.tools])
        if tool is None:
            return Action(Message("assistant", rng.choice(words)))
        arguments = _value(rng, tool.parameters, words)
        message = Message("assistant", tool_calls=(ToolCall(tool.name, arguments),))
        return Action(with_call_ids(message, context.messages))


def _value(rng: random.Random, schema: Any, words: Sequence[str]) -> JSON:
    """Return a random value that fits a JSON schema, or some words where that is no object and so says nothing."""
    given: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
    if "enum" in given:
        return rng.choice(given["enum"])
    if "anyOf" in given:
        return _value(rng, rng.choice(given["anyOf"]), words)
    kind = given.get("type", "string")
    if isinstance(kind, list):
        return _value(rng, {**given, "type": rng.choice(kind)}, words)
    if kind == "object" or "properties" in given:
        required = given.get("required") or ()
        properties = given.get("properties") or {}
        chosen = [name for name in properties if name in required or rng.random() < 0.5]
        return {name: _value(rng, properties[name], words) for name in chosen}
    if kind == "array":
        return [_value(rng, given.get("items"), words) for _ in range(rng.randint(0, MAX_ITEMS))]
    simple: dict[str, Callable[[], JSON]] = {
        "integer": lambda: rng.randint(SMALLEST, LARGEST),
        "number": lambda: round(rng.uniform(SMALLEST, LARGEST), 2),
        "boolean": lambda: rng.random() < 0.5,
        "null": lambda: None,
    }
    return simple[kind]() if kind in simple else " ".join(rng.choices(words, k=rng.randint(1, MAX_ITEMS)))
