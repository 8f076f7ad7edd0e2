"""The human policy: a person at the terminal decides."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.errors import PolicyError, did_you_mean
from understudy.types import JSON, Message, Tool, ToolCall

from .base import Action, Context, Policy, with_call_ids

if TYPE_CHECKING:
    from rich.console import Console

HELP = (
    "Say something by writing it. Call a tool with /name: /move up, /get_order order=17, or /get_order {…JSON…}. "
    "/tools lists the tools, /quit ends."
)


class PlayerLeft(PolicyError):
    """The person has ended the game."""


class HumanPolicy(Policy):
    """Shows what is new and asks for the action.

    Args:
        console: where to show it; standard output by default.
    """

    name = "human"

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(highlight=False)

    async def act(self, context: Context) -> Action:
        """Ask until the answer makes sense.

        Raises:
            PlayerLeft: the person has had enough.
        """
        if context.turn == 0:
            self._console.print(HELP, style="dim", markup=False)
        show_messages(self._console, context.observation.messages)
        if context.observation.legal_actions:
            self._console.print(f"possible: {', '.join(context.observation.legal_actions)}", style="dim", markup=False)
        while True:
            line = (await self._ask()).strip()
            if line == "/tools":
                self._show_tools(context.tools)
                continue
            if not line:
                continue
            try:
                return Action(with_call_ids(read_action(line, context.tools), context.messages))
            except ValueError as error:
                self._console.print(str(error), style="red", markup=False)

    async def _ask(self) -> str:
        try:
            line = await asyncio.to_thread(self._console.input, "> ")
        except EOFError:
            line = "/quit"
        if line.strip() == "/quit":
            raise PlayerLeft("the player left")
        return line

    def _show_tools(self, tools: Sequence[Tool]) -> None:
        for tool in tools:
            names = " ".join(tool.parameters.get("properties") or {})
            self._console.print(f"/{tool.name} {names}: {tool.description}", markup=False)


def show_messages(console: Console, messages: Sequence[Message]) -> None:
    """Print messages, each under its role."""
    for message in messages:
        title = message.role if message.name is None else f"{message.role} {message.name}"
        if message.text():
            console.print(f"{title}:", style="bold", markup=False)
            console.print(message.text(), markup=False, soft_wrap=True)
        for call in message.tool_calls:
            console.print(
                f"{title} calls {call.name}({call.arguments_text()})", style="bold", markup=False, soft_wrap=True
            )


def read_action(line: str, tools: Sequence[Tool]) -> Message:
    """Return the action that a line means.

    Raises:
        ValueError: it names no tool, or its arguments cannot be read.
    """
    if not line.startswith("/"):
        return Message("assistant", line)
    name, _, rest = line[1:].partition(" ")
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        names = [tool.name for tool in tools]
        raise ValueError(f"there is no tool {name!r}.{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}")
    return Message("assistant", tool_calls=(ToolCall(name, _arguments(rest.strip(), tool)),))


def _arguments(text: str, tool: Tool) -> dict[str, JSON]:
    """Read JSON, ``key=value`` words, or the bare value of the only parameter."""
    if text.startswith("{"):
        value = json.loads(text)
        assert isinstance(value, dict)
        return value
    properties = tool.parameters.get("properties") or {}
    if len(properties) == 1 and not text.startswith(f"{next(iter(properties))}="):
        return {next(iter(properties)): _value(text, next(iter(properties.values())))} if text else {}
    out: dict[str, JSON] = {}
    for word in shlex.split(text):
        key, equals, value = word.partition("=")
        if not equals or key not in properties:
            raise ValueError(f"write {tool.name} as /{tool.name} {' '.join(f'{name}=…' for name in properties)}")
        out[key] = _value(value, properties[key])
    return out


def _value(text: str, schema: JSON) -> JSON:
    """Read a value as JSON where the parameter is no text."""
    kind = schema.get("type", "string") if isinstance(schema, dict) else "string"
    return text if kind == "string" else json.loads(text)
