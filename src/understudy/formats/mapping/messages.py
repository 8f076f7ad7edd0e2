"""Items of a foreign list of messages, read into messages with what training needs to know about each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from understudy.errors import FormatError, did_you_mean
from understudy.types import JSON, Message, SampledTokens
from understudy.types.episode import MAX_TOKEN_ID
from understudy.types.fields import kind
from understudy.types.openai import message_from_openai, message_weight

from .paths import Path, without
from .spec import Calls, MessageFields, Messages, Sampled, Value, ValueSpec
from .values import compile_paths, compile_value, number

_OPENAI_KEYS = {
    "role": "role",
    "content": "content",
    "reasoning": "reasoning_content",
    "name": "name",
    "tool_call_id": "tool_call_id",
}
"""A declared field, and OpenAI's key for it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a conversation. `weight` None means that the source says nothing; `speaker` is its agent."""

    message: Message
    weight: float | None = None
    reward: float | None = None
    sampled: SampledTokens | None = None
    speaker: str | None = None


class MessageReader:
    """Reads items as `Messages` declares them."""

    def __init__(self, spec: Messages, speaker: ValueSpec | None = None) -> None:
        self._roles = spec.roles
        self._merge = spec.merge
        self._kind = compile_value(spec.kind) if spec.kind is not None else None
        self._speaker = compile_value(speaker) if speaker is not None else None
        drop = compile_paths(spec.drop)
        self._base = _FieldReader(spec, drop)
        declared = {name: getattr(spec, name) for name in MessageFields.model_fields if getattr(spec, name) is not None}
        self._kinds = {
            name: _FieldReader(fields.model_copy(update=declared | _declared(fields)), drop)
            for name, fields in spec.kinds.items()
        }

    def read(self, items: Iterable[JSON], field: str) -> list[Entry]:
        """Read the items of one conversation; `field` is where they stand, for errors."""
        entries: list[Entry] = []
        for index, item in enumerate(items):
            place = f"{field}[{index}]"
            try:
                entry = self._entry(item, place)
            except FormatError as error:
                raise error if (error.field or "").startswith(place) else error.at(field=place) from None
            merged = _merged(entries[-1], entry) if self._merge and entries else None
            if merged is not None:
                entries[-1] = merged
            else:
                entries.append(entry)
        return entries

    def _entry(self, item: JSON, place: str) -> Entry:
        if not isinstance(item, dict):
            raise FormatError(f"a message is an object, not {kind(item)}", field=place)
        entry = self._fields(item).read(item, self._roles, place)
        if self._speaker is None:
            return entry
        speaker = self._speaker(item, [])
        if speaker is not None and not isinstance(speaker, str):
            raise FormatError(f"a speaker is text, not {kind(speaker)}", field=place)
        return replace(entry, speaker=speaker)

    def _fields(self, item: dict[str, JSON]) -> _FieldReader:
        name = self._kind(item, []) if self._kind is not None else None
        if name is None:
            return self._base
        fields = self._kinds.get(name) if isinstance(name, str) else None
        if fields is None:
            near = did_you_mean(str(name), self._kinds)
            raise FormatError(f"no kind {name!r} is declared.{near}", mend="declare it under message.kinds")
        return fields


class _FieldReader:
    """Reads one item by one set of declared fields."""

    def __init__(self, spec: MessageFields, drop: tuple[Path, ...]) -> None:
        names = [(name, getattr(spec, name)) for name in _OPENAI_KEYS]
        self._getters = [(_OPENAI_KEYS[name], compile_value(value)) for name, value in names if value is not None]
        self._calls = _CallReader(spec.calls) if spec.calls is not None else None
        self._weight = compile_value(spec.weight) if spec.weight is not None else None
        self._reward = compile_value(spec.reward) if spec.reward is not None else None
        self._sampled = _SampledReader(spec.sampled) if spec.sampled is not None else None
        self._drop = drop

    def read(self, item: dict[str, JSON], roles: dict[str, str], place: str) -> Entry:
        used: list[Path] = [*self._drop]
        found = {key: value for key, getter in self._getters if (value := getter(item, used)) is not None}
        if "content" in found:
            found["content"] = _content(found["content"])
        role = found.get("role", item.get("role"))
        if isinstance(role, str) and role in roles:
            found["role"] = roles[role]
        if self._calls is not None:
            found["tool_calls"] = self._calls.read(item, used)
        weight = number(self._weight(item, used), "weight") if self._weight is not None else None
        reward = number(self._reward(item, used), "reward") if self._reward is not None else None
        sampled = self._sampled.read(item, used) if self._sampled is not None else None
        rest = without(item, used) if used else item
        message = message_from_openai(_together(rest, found) if found else rest, place)
        if weight is None:
            weight = message_weight(message, place)
        elif weight < 0:
            raise FormatError(f"a weight is 0 or more, not {weight}", field="weight")
        if message.role != "assistant" and (reward is not None or sampled is not None):
            what = "a reward" if reward is not None else "token ids"
            raise FormatError(f"{what} on a message of role {message.role!r}; only assistant messages have it")
        return Entry(message, weight, reward, sampled)


class _CallReader:
    """Reads the tool calls of one item into OpenAI's form; what it has no field for stays in each call."""

    def __init__(self, spec: Calls) -> None:
        self._where = compile_value(Value(path=spec.path, parse=spec.parse)) if spec.path is not None else None
        self._name, self._arguments, self._id = map(compile_value, (spec.name, spec.arguments, spec.id))

    def read(self, item: dict[str, JSON], used: list[Path]) -> list[JSON]:
        if self._where is None:
            return [self._call(item, used)]
        found = self._where(item, used)
        calls = found if isinstance(found, list) else [] if found is None else [found]
        out = []
        for call in calls:
            if not isinstance(call, dict):
                raise FormatError(f"a tool call is an object, not {kind(call)}", field="tool_calls")
            inner: list[Path] = []
            one = self._call(call, inner)
            out.append(_together(without(call, inner), one))
        return out

    def _call(self, call: dict[str, JSON], used: list[Path]) -> dict[str, JSON]:
        name = self._name(call, used)
        if not isinstance(name, str):
            raise FormatError("a tool call needs a name", field="tool_calls")
        function = {"name": name, "arguments": self._arguments(call, used)}
        call_id = self._id(call, used)
        return {"function": function} if call_id is None else {"id": call_id, "function": function}


class _SampledReader:
    """Reads recorded token ids; absent or empty lists are none."""

    def __init__(self, spec: Sampled) -> None:
        self._prompt, self._output = compile_value(spec.prompt_ids), compile_value(spec.output_ids)
        self._logprobs = compile_value(spec.logprobs) if spec.logprobs is not None else None

    def read(self, item: dict[str, JSON], used: list[Path]) -> SampledTokens | None:
        prompt = self._prompt(item, used)
        output = self._output(item, used)
        logprobs = self._logprobs(item, used) if self._logprobs is not None else None
        return sampled_tokens(prompt, output, logprobs)


def sampled_tokens(prompt_ids: JSON, output_ids: JSON, logprobs: JSON = None) -> SampledTokens | None:
    """Return checked `SampledTokens`; None when both lists of ids are absent or empty.

    Raises:
        FormatError: a list is not of its kind, is missing, or has another length than the output.
    """
    if not prompt_ids and not output_ids:
        return None
    for ids, name in ((prompt_ids, "prompt_ids"), (output_ids, "output_ids")):
        if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 <= i <= MAX_TOKEN_ID for i in ids):
            raise FormatError(f"recorded token ids are a list of integers from 0 to {MAX_TOKEN_ID:,}", field=name)
    if not logprobs:
        return SampledTokens(tuple(prompt_ids), tuple(output_ids))
    if not isinstance(logprobs, list) or not all(isinstance(p, int | float) for p in logprobs):
        raise FormatError("log probabilities are a list of numbers", field="logprobs")
    if len(logprobs) != len(output_ids):
        reason = f"{len(logprobs)} log probabilities for {len(output_ids)} output ids"
        raise FormatError(reason, field="logprobs")
    return SampledTokens(tuple(prompt_ids), tuple(output_ids), tuple(map(float, logprobs)))


def _together(rest: dict[str, JSON], found: dict[str, JSON]) -> dict[str, JSON]:
    """Put declared values under OpenAI's keys; another value that stands there already is no guess of ours to drop."""
    for key, value in found.items():
        own = rest.get(key)
        if own is not None and own != value and own != "" and own != [] and key != "role":
            mend = f"map {key!r} too, or name it under drop"
            raise FormatError(
                f"the mapping takes {key!r} from elsewhere, but the item has its own", field=key, mend=mend
            )
    return {**rest, **found}


def _content(value: JSON) -> JSON:
    """Return text and lists of parts as they are, anything else as JSON text."""
    return value if isinstance(value, str | list) else json.dumps(value, ensure_ascii=False)


def _merged(first: Entry, second: Entry) -> Entry | None:
    """Return both as one assistant message; None where they are not pieces of one."""
    a, b = first.message, second.message
    if a.role != "assistant" or b.role != "assistant" or first.speaker != second.speaker:
        return None
    reasons_later = b.reasoning_content is not None
    taken = (
        (a.content is not None and (b.content is not None or reasons_later))
        or (a.reasoning_content is not None and reasons_later)
        or (first.sampled is not None)
        or (first.reward is not None)
        or (first.weight is not None and second.weight is not None and first.weight != second.weight)
    )
    if taken:
        return None
    pieces: list[Any] = [*a.extra.get("pieces", [a.extra]), b.extra]
    message = replace(
        a,
        content=a.content if b.content is None else b.content,
        reasoning_content=a.reasoning_content if b.reasoning_content is None else b.reasoning_content,
        tool_calls=a.tool_calls + b.tool_calls,
        name=a.name or b.name,
        extra={"pieces": pieces} if any(pieces) else {},
    )
    weight = second.weight if first.weight is None else first.weight
    return replace(first, message=message, weight=weight, reward=second.reward, sampled=second.sampled)


def _declared(fields: MessageFields) -> dict[str, Any]:
    return {name: getattr(fields, name) for name in fields.model_fields_set}
