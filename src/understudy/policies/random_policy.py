"""The random policy: acts that the rules allow, chosen blindly. It shows what success is worth by luck alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from understudy.errors import ConfigError, PolicyError
from understudy.types import JSON, Message, Tool, ToolCall

from .base import Action, Context, Policy, with_call_ids

MAX_ITEMS = 3
SMALLEST, LARGEST = -100, 100

WORD = re.compile(r"\w+")


class RandomPolicy(Policy):
    """Picks one of the legal actions; else calls any tool with arguments that fit its schema, or says something.

    Words are taken from the conversation, so that names and ids come up.

    Args:
        only_calls: say nothing where there are tools: for walks that are to be learnt from.
        tools: of the tools, call these only.
        values: a regular expression. Texts are what it finds in the conversation, one find for each, in place of one to
            three words; where it finds nothing they are words.

    Raises:
        ConfigError: `values` is no regular expression, or `tools` names none.
    """

    name = "random"

    def __init__(
        self, *, only_calls: bool = False, tools: Sequence[str] | None = None, values: str | None = None
    ) -> None:
        if tools is not None and not tools:
            raise ConfigError("tools is empty; name some, or leave it out for all")
        try:
            self._values = None if values is None else re.compile(values)
        except re.error as error:
            raise ConfigError(f"values: {values!r} is no regular expression: {error}") from error
        self._only_calls = only_calls
        self._tools = None if tools is None else tuple(tools)

    def identity(self) -> JSON:
        """Name it, and say what it is held to."""
        held_to = {
            "only_calls": self._only_calls or None,
            "tools": self._tools and list(self._tools),
            "values": self._values and self._values.pattern,
        }
        return {"name": self.name} | {key: value for key, value in held_to.items() if value is not None}

    async def act(self, context: Context) -> Action:
        """Choose."""
        rng = random.Random(context.seed)
        legal = context.observation.legal_actions
        if legal:
            return Action(Message("assistant", rng.choice(legal)))
        tools = self._callable(context)
        words = _found(WORD, context.messages) or ["yes"]
        values = _found(self._values, context.messages) if self._values is not None else []
        speech = () if self._only_calls and tools else (None,)
        tool = rng.choice([*speech, *tools])
        if tool is None:
            return Action(Message("assistant", rng.choice(words)))
        arguments = _value(rng, tool.parameters, partial(_text, rng, words, values))
        message = Message("assistant", tool_calls=(ToolCall(tool.name, arguments),))
        return Action(with_call_ids(message, context.messages))

    def _callable(self, context: Context) -> Sequence[Tool]:
        """Return the tools that may be called now.

        Raises:
            PolicyError: there are tools, but none of those that the policy is held to.
        """
        tools = [tool for tool in context.tools if self._tools is None or tool.name in self._tools]
        if context.tools and not tools:
            known = ", ".join(tool.name for tool in context.tools)
            raise PolicyError(f"the random policy may call {', '.join(self._tools or ())} only; there are: {known}")
        return tools


def _found(pattern: re.Pattern[str], messages: Sequence[Message]) -> list[str]:
    return [found[0] for message in messages for found in pattern.finditer(message.text())]


def _text(rng: random.Random, words: Sequence[str], values: Sequence[str]) -> str:
    return rng.choice(values) if values else " ".join(rng.choices(words, k=rng.randint(1, MAX_ITEMS)))


def _value(rng: random.Random, schema: Any, text: Callable[[], str]) -> JSON:
    """Return a random value that fits a JSON schema, or some words where that is no object and so says nothing."""
    given: Mapping[str, Any] = schema if isinstance(schema, Mapping) else {}
    if "enum" in given:
        return rng.choice(given["enum"])
    if "anyOf" in given:
        return _value(rng, rng.choice(given["anyOf"]), text)
    kind = given.get("type", "string")
    if isinstance(kind, list):
        return _value(rng, {**given, "type": rng.choice(kind)}, text)
    if kind == "object" or "properties" in given:
        required = given.get("required") or ()
        properties = given.get("properties") or {}
        chosen = [name for name in properties if name in required or rng.random() < 0.5]
        return {name: _value(rng, properties[name], text) for name in chosen}
    if kind == "array":
        return [_value(rng, given.get("items"), text) for _ in range(rng.randint(0, MAX_ITEMS))]
    simple: dict[str, Callable[[], JSON]] = {
        "integer": lambda: rng.randint(SMALLEST, LARGEST),
        "number": lambda: round(rng.uniform(SMALLEST, LARGEST), 2),
        "boolean": lambda: rng.random() < 0.5,
        "null": lambda: None,
    }
    return simple[kind]() if kind in simple else text()
