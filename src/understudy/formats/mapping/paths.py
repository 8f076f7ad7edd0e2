"""Dotted paths into rows, compiled once and walked for every row.

``info.task.user_id`` walks objects, ``choices[0]`` and ``choices[-1]`` pick from a list, ``summary[*].text`` gives the
list of all, and ``["a.b"].c`` quotes a key that holds a dot or a bracket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from understudy.errors import ConfigError
from understudy.types import JSON

Step = str | int | None
"""A key, a position in a list, or None for every item of a list."""

_STEP = re.compile(r"""(?P<key>[^.\[\]"]+)|\[(?P<index>-?\d+)\]|\[(?P<every>\*)\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


class _Missing:
    """The type of `MISSING`, which says that a path leads nowhere; None says that it leads to null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path. `text` is what the user wrote."""

    text: str
    steps: tuple[Step, ...]

    def find(self, value: Any) -> Any:
        """Return what stands at this path within `value`, or `MISSING`."""
        return _walk(value, self.steps, 0)


def _walk(value: Any, steps: tuple[Step, ...], position: int) -> Any:
    for index in range(position, len(steps)):
        step = steps[index]
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
        elif not isinstance(value, list):
            return MISSING
        elif step is None:
            found = [_walk(item, steps, index + 1) for item in value]
            return [item for item in found if item is not MISSING]
        elif -len(value) <= step < len(value):
            value = value[step]
        else:
            return MISSING
    return value


@lru_cache(maxsize=4096)
def compile_path(text: str) -> Path:
    """Compile a path.

    Raises:
        ConfigError: it is not written as a path.
    """
    steps: list[Step] = []
    position = 0
    while position < len(text):
        if text[position] == "." and steps and position + 1 < len(text):
            position += 1
        elif steps and text[position] != "[":
            raise _not_a_path(text)
        match = _STEP.match(text, position)
        if match is None or (match["key"] is None and text[position - 1 : position] == "."):
            raise _not_a_path(text)
        steps.append(_step(match))
        position = match.end()
    if not steps:
        raise _not_a_path(text)
    return Path(text, tuple(steps))


def _step(match: re.Match[str]) -> Step:
    if match["key"] is not None:
        return match["key"]
    if match["quoted"] is not None:
        return str(json.loads(match["quoted"]))
    return int(match["index"]) if match["index"] is not None else None


def _not_a_path(text: str) -> ConfigError:
    return ConfigError(
        f'{text!r} is not a path: write it like info.task.id, choices[0].message, parts[*].text, ["a.b"].c'
    )


def without(value: dict[str, JSON], paths: Iterable[Path]) -> dict[str, JSON]:
    """Return `value` without what stands at `paths`, and without the objects and lists that this leaves empty.

    Nothing is changed in place; what no path leads to is shared with `value`. A list from which positions are picked
    stays whole unless nothing of it is left.
    """
    tree = _tree(tuple(paths))
    rest = _prune(value, tree) if tree else value
    return {} if rest is MISSING else rest


_Tree = dict[Step, Any]
"""Paths by their first steps; an empty tree is the end of a path."""


@lru_cache(maxsize=1024)
def _tree(paths: tuple[Path, ...]) -> _Tree:
    root: _Tree = {}
    ends: list[_Tree] = []
    for path in paths:
        node = root
        for step in path.steps:
            node = node.setdefault(step, {})
        ends.append(node)
    for end in ends:
        end.clear()
    return root


def _prune(value: Any, tree: _Tree) -> Any:
    if not tree:
        return MISSING
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            below = tree.get(key)
            rest = item if below is None else _prune(item, below)
            if rest is not MISSING:
                kept[key] = rest
        return kept if kept or not value else MISSING
    if isinstance(value, list):
        below = tree.get(None)
        if below is None and len(value) == 1:
            below = tree.get(0, tree.get(-1))
        if below is None:
            return value
        items = [_prune(item, below) for item in value]
        if items and all(item is MISSING for item in items):
            return MISSING
        return [{} if item is MISSING else item for item in items]
    return value
