"""What a row says about its episode beside the conversation: reward, success, agent, environment and the rest.

All formats of one conversation a row share these keys at the row's top: ``id``, ``environment``, ``task``, ``seed``,
``split``, ``reward``, ``success``, ``stop_reason``, ``error``, ``created_at``, and for the trajectory ``agent``,
``policy``, ``agent_reward``, ``agent_success``. In their absence the names of PettingLLMs within ``metadata`` are read:
``agent_name``, ``policy_name``, ``reward``, ``env_success``, ``env_name``. Every other key of the row, and all of
``metadata``, is kept in `Episode.metadata`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from understudy.errors import FormatError
from understudy.types import JSON, Episode, Tool, Trajectory, Turn
from understudy.types.fields import is_finite_number, join

_EPISODE_TEXT = ("environment", "split", "stop_reason", "error", "created_at")
_IN_METADATA = {
    "agent": "agent_name",
    "policy": "policy_name",
    "reward": "reward",
    "success": "env_success",
    "environment": "env_name",
}


@dataclass(frozen=True, slots=True)
class RowFields:
    """The keyword arguments that a row gives for its `Episode` and its `Trajectory`."""

    episode: dict[str, Any]
    trajectory: dict[str, Any]

    def build(self, turns: tuple[Turn, ...]) -> Episode:
        """Return the episode of one trajectory with these turns."""
        return Episode(trajectories=(Trajectory(turns, **self.trajectory),), **self.episode)


def take_fields(rest: dict[str, JSON], id: str) -> RowFields:
    """Read the fields of a row that stand beside its conversation.

    Args:
        rest: the row without the keys of the conversation itself. What is no field goes to the metadata.
        id: for a row that names none.

    Raises:
        FormatError: a reward is no finite number.
    """
    given = rest.pop("metadata", None)
    metadata: dict[str, JSON] = dict(given) if isinstance(given, dict) else {} if given is None else {"metadata": given}
    derived = {name: metadata[key] for name, key in _IN_METADATA.items() if metadata.get(key) is not None}
    found: dict[str, Any] = {}
    for name in _READERS:
        if name in rest:
            if (value := rest[name]) is None or (value := _READERS[name](value, name)) is not None:
                found[name] = value
                del rest[name]
        elif name in derived:
            value = _READERS[name](derived[name], join("metadata", _IN_METADATA[name]))
            if value is not None:
                found[name] = value
    for key, value in rest.items():
        metadata[f"row.{key}" if key in metadata else key] = value
    trajectory = {target: value for name, target in _TRAJECTORY.items() if (value := found.pop(name, None)) is not None}
    found["id"] = found.get("id") or id
    return RowFields(found | {"metadata": metadata}, trajectory)


def put_fields(episode: Episode) -> dict[str, JSON]:
    """Return the keys that `take_fields` reads back, for an episode of one trajectory. Defaults are left out."""
    trajectory = episode.trajectories[0]
    row: dict[str, JSON] = {"id": episode.id}
    derived = take_fields({"metadata": episode.metadata}, "").build(trajectory.turns)
    for name in ("task", "seed", "reward", "success", *_EPISODE_TEXT):
        value = getattr(episode, name)
        if value != getattr(derived, name):
            row[name] = value
    for name, target in _TRAJECTORY.items():
        value = getattr(trajectory, target)
        if value != getattr(derived.trajectories[0], target):
            row[name] = value
    if episode.metadata:
        row["metadata"] = episode.metadata
    return row


def with_tools(turns: tuple[Turn, ...], tools: tuple[Tool, ...]) -> tuple[Turn, ...]:
    """Put the row's tools on the root turn."""
    return (replace(turns[0], tools=tools), *turns[1:]) if turns and tools else turns


def reward(value: JSON, field: str) -> float | None:
    """Return a reward; true and false are 1 and 0.

    Raises:
        FormatError: it is no finite number.
    """
    if value is None:
        return None
    if not is_finite_number(value):
        mend = "write a number, or null where it is unknown"
        raise FormatError(f"a reward is a finite number, not {value!r:.40}", field=field, mend=mend)
    return float(value)


def _text(value: JSON, field: str) -> str | None:
    return value if isinstance(value, str) else None


def _identifier(value: JSON, field: str) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, field)


def _seed(value: JSON, field: str) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _success(value: JSON, field: str) -> bool | None:
    return bool(value) if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)) else None


def _anything(value: JSON, field: str) -> JSON:
    return value


# Each returns None for a value that is not of the field's type: such a value stays in the metadata.
_READERS = {
    "id": _identifier,
    "task": _anything,
    "seed": _seed,
    "reward": reward,
    "success": _success,
    "agent": _text,
    "policy": _text,
    "agent_reward": reward,
    "agent_success": _success,
    **dict.fromkeys(_EPISODE_TEXT, _text),
}
_TRAJECTORY = {"agent": "agent", "policy": "policy", "agent_reward": "reward", "agent_success": "success"}
