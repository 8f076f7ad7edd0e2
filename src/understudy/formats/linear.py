"""Episodes as linear conversations, for formats whose row is one, and what such a row leaves out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

from understudy.types import JSON, Episode, Message, Trajectory
from understudy.types.openai import WEIGHT_FLAGS


def linear_pieces(episode: Episode) -> tuple[list[Episode], set[str]]:
    """Return the episode as episodes of one linear trajectory each, and what is lost by the cut.

    There is one piece for each leaf of each trajectory; a leaf without any message has none. A turn that several leaves
    share keeps its weight in the first piece and has none in the others, so that nothing is trained twice.
    """
    lost: set[str] = set()
    pieces: list[Episode] = []
    for trajectory in episode.trajectories:
        written: set[int] = set()
        leaves = trajectory.leaves()
        if len(leaves) > 1:
            lost.add("trajectories.turns.parent")
        for leaf in leaves:
            lineage = trajectory.lineage(leaf)
            if not trajectory.messages(leaf):
                lost.add("trajectories.turns")
                continue
            turns = tuple(
                replace(
                    trajectory.turns[index],
                    parent=None if k == 0 else k - 1,
                    weight=0.0 if index in written else trajectory.turns[index].weight,
                )
                for k, index in enumerate(lineage)
            )
            written.update(lineage)
            pieces.append(replace(episode, trajectories=(replace(trajectory, turns=turns),)))
    if len(episode.trajectories) != 1 or not pieces:
        lost.add("trajectories")
    if len(pieces) > 1:
        pieces = [replace(piece, id=f"{episode.id}/{k}") for k, piece in enumerate(pieces)]
    return pieces, lost


def weighted_messages(trajectory: Trajectory) -> list[tuple[Message, float | None]]:
    """Return a linear trajectory's messages, those of role assistant with their weight: 0 where they are no action."""
    out: list[tuple[Message, float | None]] = []
    for turn in trajectory.turns:
        out.extend((message, 0.0 if message.role == "assistant" else None) for message in turn.observation)
        if turn.action is not None:
            out.append((turn.action, turn.weight))
    return out


def differences(before: object, after: object, path: str = "") -> set[str]:
    """Return the dotted names of fields in which two values differ. Items of lists share one name."""
    if dataclasses.is_dataclass(before) and type(before) is type(after):
        names: set[str] = set()
        for field in dataclasses.fields(before):
            a, b = getattr(before, field.name), getattr(after, field.name)
            if isinstance(before, Message) and before.role == "assistant" and field.name == "extra":
                a, b = _without_flags(a), _without_flags(b)
            names |= differences(a, b, f"{path}.{field.name}" if path else field.name)
        return names
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return {name for a, b in zip(before, after, strict=True) for name in differences(a, b, path)}
    if isinstance(before, dict) and isinstance(after, dict):
        keys = before.keys() | after.keys()
        return {f"{path}.{key}" for key in keys if not _same(before.get(key, ...), after.get(key, ...))}
    return set() if _same(before, after) else {path}


def _without_flags(extra: dict[str, JSON]) -> dict[str, JSON]:
    """Leave out what `Turn.weight` says."""
    return {key: value for key, value in extra.items() if key not in WEIGHT_FLAGS}


def _same(a: object, b: object) -> bool:
    """Say whether two JSON values are equal: NaN equals itself, true is no number, and 1 equals 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return isinstance(a, bool) == isinstance(b, bool) and a == b
