"""Reading a map and what is said below it."""

from __future__ import annotations

import re

from understudy.environments.reading import Reading

from .puzzle import is_solved, parse_map

_MAP_LINE = re.compile(r"[-#.@+$*](?: [-#.@+$*])*")
_MOVES_LEFT = re.compile(r"^Moves left: (\d+)\.$", re.MULTILINE)


def read_view(text: str, *, has_boxes: bool) -> Reading:
    """Return how a puzzle stands by what the agent sees of it; nothing where that is no whole map.

    Args:
        has_boxes: the puzzle is about boxes, so a map without any is none of it.
    """
    rows = [line.replace(" ", "") for line in text.splitlines() if _MAP_LINE.fullmatch(line)]
    left = _MOVES_LEFT.search(text)
    try:
        layout, position = parse_map(rows)
    except ValueError:
        return Reading()
    if has_boxes != bool(position.boxes):
        return Reading()
    if is_solved(layout, position):
        return Reading("solved", 1.0)
    return Reading("out_of_moves", 0.0) if left is not None and int(left[1]) == 0 else Reading()
