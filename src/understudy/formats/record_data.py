"""AgentRL's `RecordData`: OpenAI messages with scores, advantages and more, keyed by the index of their message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from understudy.errors import FormatError
from understudy.types import JSON, Episode, Turn, message_weight, tools_from_openai
from understudy.types.fields import is_finite_number, kind, parse_json

from .base import Format
from .episode_fields import put_fields, take_fields, with_tools
from .messages import RECORD_DATA_KEYS, holds_messages, read_conversation, write_conversation

ANNOTATIONS = {
    "scores": "score",
    "advantages": "advantage",
    "created_at_step": "created_at_step",
    "logprobs": "logprobs",
}
"""The row's keys, and the names in `Turn.annotations` under which an assistant message's own value stands."""


class RecordData(Format):
    """``{messages, tools?, scores{i}, advantages{i}, created_at_step{i}, logprobs{i}?, reward, step, record_id?}``.

    Values of assistant messages go to `Turn.annotations`, those of others to the metadata under ``record_data``.
    ``record_id`` is the episode's id, ``step`` stands in the metadata. A missing reward stays unknown.

    As in AgentRL, ``advantages`` names what is trained: where some assistant messages have one, the others are context
    (weight 0), unless a flag of their own says otherwise. Where none has one, all are trained.
    """

    name: ClassVar[str] = "record_data"
    summary: ClassVar[str] = "AgentRL: messages with scores, advantages, created_at_step and logprobs by message index"

    def match(self, row: Mapping[str, JSON]) -> str | None:
        if not holds_messages(row.get("messages")):
            return None
        found = [key for key in RECORD_DATA_KEYS if key in row]
        return f"'messages' stands with {', '.join(map(repr, found))}" if found else None

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        turns = read_conversation(rest.pop("messages", None), "messages")
        tools = tools_from_openai(rest.pop("tools", None))
        by_message = {key: _by_index(rest.pop(key, None), key, turns) for key in ANNOTATIONS}
        if rest.get("id") is None and rest.get("record_id") is not None:
            rest["id"] = rest.pop("record_id")
        annotated, others = _annotate(_weigh(turns, by_message["advantages"]), by_message)
        episode = take_fields(rest, id).build(with_tools(annotated, tools))
        return [replace(episode, metadata=episode.metadata | {"record_data": others}) if others else episode]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        turns = episode.trajectories[0].turns
        metadata = dict(episode.metadata)
        by_message: dict[str, dict[str, JSON]] = {key: {} for key in ("scores", "advantages", "created_at_step")}
        others = _read_others(metadata.get("record_data"), turns)
        if others:
            del metadata["record_data"]
            by_message |= others
        for k, index in _actions(turns):
            for key, name in ANNOTATIONS.items():
                value = turns[k].annotations.get(name)
                if _may_hold(key, value):
                    by_message.setdefault(key, {})[str(index)] = value
        step = {"step": metadata.pop("step")} if "step" in metadata else {}
        fields = put_fields(replace(episode, metadata=metadata))
        messages = _write_messages(episode, by_message["advantages"])
        return messages | by_message | step | {"record_id": fields.pop("id")} | fields


def _actions(turns: tuple[Turn, ...]) -> list[tuple[int, int]]:
    """Return (index of the turn, index of the message) of every action."""
    out = []
    num_messages = 0
    for k, turn in enumerate(turns):
        num_messages += len(turn.observation)
        if turn.action is not None:
            out.append((k, num_messages))
            num_messages += 1
    return out


def _num_messages(turns: tuple[Turn, ...]) -> int:
    return sum(len(turn.observation) + (turn.action is not None) for turn in turns)


def _may_hold(key: str, value: JSON) -> bool:
    """Say whether a value may stand under a key. Those that weigh the loss are finite numbers."""
    return value is not None and (key == "logprobs" or is_finite_number(value))


def _read_others(value: JSON, turns: tuple[Turn, ...]) -> dict[str, dict[str, JSON]]:
    """Return the values of messages that are no actions; nothing where the metadata hold something else there."""
    if not isinstance(value, dict) or not value.keys() <= ANNOTATIONS.keys():
        return {}
    indices = {str(index) for index in range(_num_messages(turns))} - {str(index) for _, index in _actions(turns)}
    for key, values in value.items():
        if not isinstance(values, dict) or not values or not values.keys() <= indices:
            return {}
        if not all(_may_hold(key, one) for one in values.values()):
            return {}
    return {key: dict(values) for key, values in value.items()}


def _by_index(value: JSON, field: str, turns: tuple[Turn, ...]) -> dict[int, JSON]:
    """Return the values by message index; a null stands for none.

    Raises:
        FormatError: a key is no index of a message, or a value that weighs the loss is no finite number.
    """
    if value is None:
        return {}
    if isinstance(value, str):  # Parquet columns often hold objects as text
        value = parse_json(value, field, "values")
    if not isinstance(value, Mapping):
        raise FormatError(f"expected an object keyed by message index, not {kind(value)}", field=field)
    indices = {str(index): index for index in range(_num_messages(turns))}
    out: dict[int, JSON] = {}
    for key, one in value.items():
        if str(key) not in indices:
            mend = f"the row has messages 0 to {len(indices) - 1}"
            raise FormatError(f"{key!r:.40} is not the index of a message", field=field, mend=mend)
        if one is None:
            continue
        if not _may_hold(field, one):
            raise FormatError(f"expected a finite number, not {one!r:.40}", field=f"{field}[{key}]")
        out[indices[str(key)]] = one
    return out


def _left_out(turns: tuple[Turn, ...], advantages: Collection[int]) -> list[tuple[int, int]]:
    """Return (turn, message) of the actions that have no advantage while others have one, and no flag of their own."""
    actions = _actions(turns)
    if not any(index in advantages for _, index in actions):
        return []
    return [
        (k, index)
        for k, index in actions
        if index not in advantages and (action := turns[k].action) is not None and message_weight(action) is None
    ]


def _weigh(turns: tuple[Turn, ...], advantages: Collection[int]) -> tuple[Turn, ...]:
    """Return the turns, those that the advantages leave out without weight."""
    out = list(turns)
    for k, _ in _left_out(turns, advantages):
        out[k] = replace(turns[k], weight=0.0)
    return tuple(out)


def _write_messages(episode: Episode, advantages: Collection[str]) -> dict[str, JSON]:
    """Return messages and tools; a message has a flag where its weight is not what the advantages say."""
    row: dict[str, Any] = write_conversation(episode)
    turns = episode.trajectories[0].turns
    for k, index in _left_out(turns, [int(key) for key in advantages]):
        row["messages"][index].pop("weight", None)
        if turns[k].weight:
            row["messages"][index]["weight"] = turns[k].weight
    return row


def _annotate(
    turns: tuple[Turn, ...], by_message: dict[str, dict[int, JSON]]
) -> tuple[tuple[Turn, ...], dict[str, dict[str, JSON]]]:
    """Return the turns with their annotations, and the values that belong to no action, by key and index."""
    out = list(turns)
    for k, index in _actions(turns):
        found = {name: by_message[key].pop(index) for key, name in ANNOTATIONS.items() if index in by_message[key]}
        if found:
            out[k] = replace(turns[k], annotations=found)
    others = {key: {str(i): value for i, value in values.items()} for key, values in by_message.items() if values}
    return tuple(out), others
