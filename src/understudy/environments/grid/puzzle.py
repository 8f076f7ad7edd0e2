"""A grid with walls, a player, boxes and targets: its rules, its map in text, and a solver.

Path finding and Sokoban are one puzzle. With boxes, the puzzle is solved when every box stands on a target; without,
when the player stands on the target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from understudy.errors import EnvironmentFault

Cell = tuple[int, int]
"""Row and column, counted from 0 at the top left."""

DIRECTIONS: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

WALL, FLOOR, TARGET, PLAYER, PLAYER_ON_TARGET, BOX, BOX_ON_TARGET = "#-.@+$*"
"""The characters of a map, which are those that Sokoban levels are commonly written in."""

MAX_SEARCHED = 2_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """What does not move."""

    height: int
    width: int
    walls: frozenset[Cell]
    targets: frozenset[Cell]

    def is_free(self, cell: Cell) -> bool:
        """Say whether something can stand there."""
        return 0 <= cell[0] < self.height and 0 <= cell[1] < self.width and cell not in self.walls


@dataclass(frozen=True, slots=True)
class Position:
    """What moves."""

    player: Cell
    boxes: frozenset[Cell] = frozenset()


def parse_map(rows: Sequence[str]) -> tuple[Layout, Position]:
    """Read a map.

    Raises:
        ValueError: the rows differ in length, hold another character, or have not exactly one player.
    """
    cells = {(r, c): char for r, row in enumerate(rows) for c, char in enumerate(row)}
    if len({len(row) for row in rows}) != 1 or set(cells.values()) - set("#-.@+$*"):
        raise ValueError("a map has rows of equal length, of the characters # - . @ + $ *")

    def where(characters: str) -> frozenset[Cell]:
        return frozenset(cell for cell, char in cells.items() if char in characters)

    players = where(PLAYER + PLAYER_ON_TARGET)
    if len(players) != 1:
        raise ValueError(f"a map has one player, not {len(players)}")
    layout = Layout(len(rows), len(rows[0]), where(WALL), where(TARGET + PLAYER_ON_TARGET + BOX_ON_TARGET))
    return layout, Position(next(iter(players)), where(BOX + BOX_ON_TARGET))


def draw_map(layout: Layout, position: Position) -> list[str]:
    """Return the rows that `parse_map` reads back."""

    def char(cell: Cell) -> str:
        if cell in layout.walls:
            return WALL
        on_target = cell in layout.targets
        if cell == position.player:
            return PLAYER_ON_TARGET if on_target else PLAYER
        if cell in position.boxes:
            return BOX_ON_TARGET if on_target else BOX
        return TARGET if on_target else FLOOR

    return ["".join(char((r, c)) for c in range(layout.width)) for r in range(layout.height)]


def neighbour(cell: Cell, direction: str) -> Cell:
    """Return the cell next to a cell."""
    down, right = DIRECTIONS[direction]
    return cell[0] + down, cell[1] + right


def move(layout: Layout, position: Position, direction: str) -> Position | None:
    """Return where a move leads, pushing a box that is in the way; None where it is blocked."""
    to = neighbour(position.player, direction)
    if not layout.is_free(to):
        return None
    if to not in position.boxes:
        return Position(to, position.boxes)
    pushed = neighbour(to, direction)
    if not layout.is_free(pushed) or pushed in position.boxes:
        return None
    return Position(to, position.boxes - {to} | {pushed})


def is_solved(layout: Layout, position: Position) -> bool:
    """Say whether the puzzle is solved."""
    return position.boxes <= layout.targets if position.boxes else position.player in layout.targets


def solve(layout: Layout, position: Position) -> list[str] | None:
    """Return a shortest list of moves to a solution, found breadth first; None where there is none.

    Raises:
        EnvironmentFault: the puzzle is too large to be searched.
    """
    came_from: dict[Position, tuple[Position, str] | None] = {position: None}
    queue = deque([position])
    while queue:
        here = queue.popleft()
        if is_solved(layout, here):
            return list(_moves_to(here, came_from))[::-1]
        for direction in DIRECTIONS:
            there = move(layout, here, direction)
            if there is not None and there not in came_from:
                came_from[there] = (here, direction)
                queue.append(there)
        if len(came_from) > MAX_SEARCHED:
            raise EnvironmentFault(f"the grid has more than {MAX_SEARCHED:,} positions: make it smaller")
    return None


def _moves_to(position: Position, came_from: dict[Position, tuple[Position, str] | None]) -> Iterator[str]:
    step = came_from[position]
    while step is not None:
        yield step[1]
        step = came_from[step[0]]
