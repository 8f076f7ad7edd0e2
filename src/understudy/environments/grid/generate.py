"""Random puzzles that can be solved."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .puzzle import DIRECTIONS, Cell, Layout, Position, draw_map, neighbour, solve

MAX_TRIES = 1000


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A map, and how many moves its shortest solution has."""

    rows: list[str]
    num_moves: int


def draw_path(rng: random.Random, *, size: int, wall_share: float) -> Puzzle:
    """Return a path problem: a player, a target that can be reached, and random walls."""
    for _ in range(MAX_TRIES):
        cells = [(r, c) for r in range(size) for c in range(size)]
        player, target = rng.sample(cells, 2)
        walls = frozenset(cell for cell in cells if cell not in (player, target) and rng.random() < wall_share)
        layout, position = Layout(size, size, walls, frozenset({target})), Position(player)
        solution = solve(layout, position)
        if solution is not None:
            return Puzzle(draw_map(layout, position), len(solution))
    raise ValueError(f"no path in {MAX_TRIES} tries: lower wall_share ({wall_share})")


def draw_sokoban(rng: random.Random, *, size: int, num_boxes: int, wall_share: float) -> Puzzle:
    """Return a Sokoban problem, made by pulling boxes off their targets from a solved one.

    The outer cells are walls. A problem is kept when no box stands where it began.
    """
    inner = [(r, c) for r in range(1, size - 1) for c in range(1, size - 1)]
    border = frozenset((r, c) for r in range(size) for c in range(size)) - frozenset(inner)
    for _ in range(MAX_TRIES):
        walls = border | frozenset(cell for cell in inner if rng.random() < wall_share)
        free = [cell for cell in inner if cell not in walls]
        if len(free) < 2 * num_boxes + 1:
            continue
        *targets, player = rng.sample(free, num_boxes + 1)
        layout = Layout(size, size, walls, frozenset(targets))
        position = Position(player, frozenset(targets))
        for _ in range(rng.randint(10, 20) * num_boxes):
            position = _wander(rng, layout, position)
        if not position.boxes & layout.targets:
            solution = solve(layout, position)
            assert solution is not None, "what was made by pulling can be undone by pushing"
            return Puzzle(draw_map(layout, position), len(solution))
    raise ValueError(f"no puzzle in {MAX_TRIES} tries: raise size ({size}), or lower num_boxes or wall_share")


def _wander(rng: random.Random, layout: Layout, position: Position) -> Position:
    """Take one random step back in time: walk, and pull the box behind when there is one."""
    direction = rng.choice(list(DIRECTIONS))
    to = neighbour(position.player, direction)
    if not layout.is_free(to) or to in position.boxes:
        return position
    behind = _opposite(position.player, direction)
    if behind in position.boxes:
        return Position(to, position.boxes - {behind} | {position.player})
    return Position(to, position.boxes)


def _opposite(cell: Cell, direction: str) -> Cell:
    down, right = DIRECTIONS[direction]
    return cell[0] - down, cell[1] - right
