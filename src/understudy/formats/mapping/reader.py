"""A compiled field mapping: one row in, one episode out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from understudy.errors import ConfigError, FormatError
from understudy.types import JSON, Episode, Tool, Trajectory
from understudy.types.fields import kind, parse_json
from understudy.types.openai import tools_from_openai

from .messages import Entry, MessageReader
from .paths import Path, without
from .spec import FieldMapping, Source, Tools
from .turns import by_agent, chain, tree
from .values import Getter, checked, compile_paths, compile_value, first_found, number

_text = checked(str, "text")
_CHECKS: dict[str, Callable[[JSON, str], Any]] = {
    "environment": _text,
    "task": lambda value, field: value,
    "seed": checked(int, "an integer"),
    "split": _text,
    "reward": number,
    "success": checked(bool, "true or false"),
    "stop_reason": _text,
    "error": _text,
    "created_at": _text,
}
"""The fields of an episode that a mapping may declare, and what their values must be."""


@dataclass(frozen=True, slots=True)
class _Conversations:
    """What a row holds: one conversation, or one for each call of the policy."""

    each: list[list[Entry]]
    are_calls: bool


class MappedRows:
    """Reads rows as a `FieldMapping` declares them.

    Args:
        folder: what a relative `tools.file` is relative to.

    Raises:
        ConfigError: the file of tools cannot be read.
    """

    def __init__(self, mapping: FieldMapping, folder: FilePath) -> None:
        declared = mapping.messages if isinstance(mapping.messages, tuple) else (mapping.messages,)
        self._sources = [source if isinstance(source, Source) else Source(path=source) for source in declared]
        self._paths = [compile_paths(source.path) for source in self._sources]
        speaker = mapping.agents.speaker if mapping.agents is not None else None
        self._messages = MessageReader(mapping.message, speaker)
        self._agents = mapping.agents
        self._system = compile_paths(mapping.agents.system if mapping.agents is not None else None)
        self._fields = {name: _optional(getattr(mapping, name)) for name in _CHECKS}
        self._id, self._agent, self._policy = map(_optional, (mapping.id, mapping.agent, mapping.policy))
        self._tool_paths, self._shared_tools = _open_tools(mapping.tools, folder)
        self._drop = compile_paths(mapping.drop)

    def episode(self, row: JSON, *, default_id: str, metadata: dict[str, JSON] | None = None) -> Episode:
        """Read one row.

        Args:
            default_id: names the episode when the mapping declares no id, or the row has none.
            metadata: the episode's metadata; by default what the mapping leaves of the row.

        Raises:
            FormatError: the row is not what the mapping declares, with the field and the reason.
        """
        if not isinstance(row, dict):
            raise FormatError(f"a row is an object, not {kind(row)}")
        used: list[Path] = [*self._drop]
        found = {name: _CHECKS[name](get(row, used), name) for name, get in self._fields.items() if get is not None}
        conversations = self._conversations(row, used)
        if not any(conversations.each) and not any(source.optional for source in self._sources):
            mend = "leave the row out, or declare optional where the messages stand"
            raise FormatError("there is no message", field=self._paths[0][0].text, mend=mend)
        tools = self._tools(row, used) if any(conversations.each) else ()
        trajectories = self._trajectories(row, conversations, tools, used)
        identifier = self._id(row, used) if self._id is not None else None
        return Episode(
            id=default_id if identifier is None else _identifier(identifier),
            trajectories=trajectories,
            metadata=without(row, used) if metadata is None else metadata,
            **found,
        )

    def _conversations(self, row: dict[str, JSON], used: list[Path]) -> _Conversations:
        """Return what all sources of messages hold, put together."""
        so_far = _Conversations([[]], are_calls=False)
        for source, paths in zip(self._sources, self._paths, strict=True):
            path, value = first_found(paths, row)
            if path is None:
                if source.optional:
                    continue
                wanted = " or ".join(path.text for path in paths)
                raise FormatError("the row has no messages here", field=wanted, mend="correct the mapping's messages")
            used.append(path)
            more = self._at_source(source, path, value)
            if so_far.are_calls and more.are_calls:
                raise FormatError("two places hold lists of conversations", field=path.text)
            joined = [[*before, *after] for before in so_far.each for after in more.each]
            so_far = _Conversations(joined, so_far.are_calls or more.are_calls)
        return so_far

    def _at_source(self, source: Source, path: Path, value: JSON) -> _Conversations:
        if source.parse and isinstance(value, str):
            value = parse_json(value, path.text, "messages")
        if isinstance(value, str):
            if source.role is None:
                reason = "this is text, and the mapping names no role for it"
                raise FormatError(reason, field=path.text, mend="give the source a role, or parse: json")
            value = {"role": source.role, "content": value}
        items = [value] if isinstance(value, dict) else [] if value is None else value
        if not isinstance(items, list):
            raise FormatError(f"messages are a list, not {kind(items)}", field=path.text)
        are_calls = bool(items) and all(isinstance(item, list) for item in items)
        if are_calls:
            found = [self._messages.read(inner, f"{path.text}[{k}]") for k, inner in enumerate(items)]
        else:
            found = [self._messages.read(items, path.text)]
        limit = None if source.context == "all" else source.context
        return _Conversations([_with_context(entries, limit) for entries in found], are_calls)

    def _trajectories(
        self, row: dict[str, JSON], conversations: _Conversations, tools: tuple[Tool, ...], used: list[Path]
    ) -> tuple[Trajectory, ...]:
        if self._agents is not None:
            if conversations.are_calls:
                raise FormatError("agents need one conversation, but the row holds a list of them")
            path, prompts = self._prompts(row)
            trajectories = by_agent(conversations.each[0], tools, frozenset(self._agents.observed), prompts)
            if path is not None:  # the prompts of agents that never speak stay in the metadata
                speakers = [each.agent for each in trajectories if each.agent in prompts]
                used.extend(Path(f"{path.text}.{agent}", (*path.steps, agent)) for agent in speakers)
            return trajectories
        each = conversations.each
        turns = tree(each, tools) if conversations.are_calls else chain(each[0], tools)
        agent = _text(self._agent(row, used), "agent") if self._agent is not None else None
        policy = _text(self._policy(row, used), "policy") if self._policy is not None else None
        return (Trajectory(turns, agent=agent or "agent", policy=policy),)

    def _prompts(self, row: dict[str, JSON]) -> tuple[Path | None, dict[str, str]]:
        """Return each agent's system prompt, and where they stand."""
        path, prompts = first_found(self._system, row)
        if path is None or prompts is None:
            return None, {}
        if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
            raise FormatError("the agents' system prompts are an object of texts", field=path.text)
        return path, prompts

    def _tools(self, row: dict[str, JSON], used: list[Path]) -> tuple[Tool, ...]:
        path, value = first_found(self._tool_paths, row)
        if path is None:
            return self._shared_tools
        used.append(path)
        return tools_from_openai(value, path.text)


def _open_tools(
    spec: str | tuple[str, ...] | Tools | None, folder: FilePath
) -> tuple[tuple[Path, ...], tuple[Tool, ...]]:
    """Return (paths within a row, tools that all rows share)."""
    if not isinstance(spec, Tools):
        return compile_paths(spec), ()
    paths = compile_paths(spec.path)
    if spec.file is None:
        return paths, ()
    file = folder / FilePath(spec.file).expanduser()
    mend = (
        "name it behind the mapping, as in mapping.yaml?tools.file=PATH, or go without tools: mapping.yaml?tools=null"
    )
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"tools.file: cannot read {file}: {error.strerror or error}; {mend}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"tools.file: {file} is not JSON: {error}") from error
    if paths:
        path, value = first_found(paths, value)
        if path is None:
            raise ConfigError(f"tools.path: {file} holds nothing at {' or '.join(path.text for path in paths)}")
    try:
        return (), tools_from_openai(value, "tools")
    except FormatError as error:
        raise ConfigError(str(error.at(file=str(file)))) from error


def _optional(spec: Any) -> Getter | None:
    return compile_value(spec) if spec is not None else None


def _identifier(value: JSON) -> str:
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise FormatError(f"an id is text or a number, not {kind(value)}", field="id")


def _with_context(entries: list[Entry], limit: int | None) -> list[Entry]:
    """Give the first `limit` messages (None: all) weight 0."""
    context = [replace(entry, weight=0.0) for entry in entries[:limit]]
    return [*context, *entries[len(context) :]]
