"""The grid environment: a map in text, and one move a turn."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from understudy.environments.base import ExpertStuck, Observation
from understudy.environments.reading import Reading
from understudy.environments.relabelling import hindsight, states_of
from understudy.environments.tool_environment import ToolEnvironment, calls, says, system, user
from understudy.environments.toolbox import Toolbox
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Episode, Message

from .generate import Puzzle, draw_path, draw_sokoban
from .puzzle import DIRECTIONS, Cell, Layout, Position, draw_map, is_solved, move, parse_map, solve
from .reading import read_view

Direction = Literal["up", "down", "left", "right"]

RULES = {
    "path": "You are @ on a map. Reach the target (.). # is a wall and - is free.",
    "sokoban": (
        "You are @ on a map. Push every box ($) onto a target (.) by walking into it; boxes cannot be pulled, and only "
        "one moves at a time. # is a wall, - is free, * is a box on a target and + is you on a target."
    ),
}
HOW_TO_ACT = {
    "tool": "Call the tool move once for each move.",
    "text": "Answer with one word: up, down, left or right.",
}

MAX_DRAWS = 100_000
"""So many puzzles in a row that are too short mean that there is none of `min_moves` moves."""


@dataclass(slots=True)
class GridState:
    """A puzzle under way. `plan` is what the expert has in mind from `planned_at` on."""

    puzzle: str
    layout: Layout
    position: Position
    moves_left: int
    plan: list[str] = field(default_factory=list)
    planned_at: Position | None = None


class Grid(ToolEnvironment[GridState]):
    """Path finding and Sokoban on a map of characters, within a number of moves.

    Args:
        puzzle: ``path`` or ``sokoban``.
        size: rows and columns; a Sokoban map has walls all around within them.
        wall_share: chance of a cell to be a wall.
        num_boxes: boxes of a Sokoban puzzle.
        min_moves: fewest moves that a solution takes.
        spare_moves: moves that the agent has beyond the shortest solution.
        interface: ``tool`` for calls of ``move(direction)``, ``text`` for answers of one word.
        view: ``append`` adds each new map to the conversation; ``replace`` shows only the present one, in a new prompt.
        coordinates: also say where everything is as rows and columns, counted from 1.
        num_tasks, task_seed: see `ToolEnvironment`.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    default_max_steps = 1000

    def __init__(
        self,
        *,
        puzzle: Literal["path", "sokoban"] = "path",
        size: int = 6,
        wall_share: float = 0.2,
        num_boxes: int = 1,
        min_moves: int = 2,
        spare_moves: int = 2,
        interface: Literal["tool", "text"] = "tool",
        view: Literal["append", "replace"] = "append",
        coordinates: bool = True,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        for name, value, known in (
            ("puzzle", puzzle, RULES),
            ("interface", interface, HOW_TO_ACT),
            ("view", view, ("append", "replace")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}.{did_you_mean(value, known)} Known: {', '.join(known)}")
        if not 3 <= size <= 20 or not 0 <= wall_share <= 0.6 or not 1 <= num_boxes <= 4 or spare_moves < 0:
            raise ConfigError(
                f"size {size} goes from 3 to 20, wall_share {wall_share} from 0 to 0.6, num_boxes {num_boxes} from 1 "
                f"to 4, spare_moves {spare_moves} from 0 up"
            )
        self._puzzle = puzzle
        self._size = size
        self._wall_share = wall_share
        self._num_boxes = num_boxes
        self._min_moves = min_moves
        self._spare_moves = spare_moves
        self._interface = interface
        self._view = view
        self._coordinates = coordinates
        super().__init__(num_tasks=num_tasks, task_seed=task_seed)

    def make_toolbox(self) -> Toolbox:
        """Return the tool move, or none where the agent acts in words."""
        return Toolbox(self.move) if self._interface == "tool" else Toolbox()

    def move(self, direction: Direction) -> str:
        """Move one cell.

        Args:
            direction: where to
        """
        state = self.state
        to = move(state.layout, state.position, direction)
        state.moves_left -= 1
        if to is not None:
            state.position = to
        if self.is_success():
            self.finish("solved")
        elif state.moves_left == 0:
            self.finish("out_of_moves")
        blocked = "" if to is not None else "That way is blocked.\n"
        return blocked + self._view_text()

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a map that can be solved in `min_moves` moves or more, and the moves that are allowed.

        Raises:
            ConfigError: such maps are not found.
        """
        for _ in range(MAX_DRAWS):
            try:
                puzzle = self._draw_puzzle(rng)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            if puzzle.num_moves >= self._min_moves:
                max_moves = puzzle.num_moves + self._spare_moves
                return {"puzzle": self._puzzle, "map": puzzle.rows, "max_moves": max_moves}
        raise ConfigError(
            f"no puzzle of {self._min_moves} moves or more in {MAX_DRAWS:,} tries: lower min_moves, or raise size "
            f"({self._size})"
        )

    def _draw_puzzle(self, rng: random.Random) -> Puzzle:
        if self._puzzle == "path":
            return draw_path(rng, size=self._size, wall_share=self._wall_share)
        return draw_sokoban(rng, size=self._size, num_boxes=self._num_boxes, wall_share=self._wall_share)

    def begin(self, task: Any) -> tuple[GridState, tuple[Message, ...]]:
        """Say the rules and show the map."""
        layout, position = parse_map(task["map"])
        state = GridState(task["puzzle"], layout, position, int(task["max_moves"]))
        return state, self._prompt(state)

    def observe(self, messages: tuple[Message, ...]) -> Observation:
        """Show the new map, in the conversation or in a prompt of its own."""
        state = self.state
        legal = None
        if self._interface == "text":
            legal = tuple(name for name in DIRECTIONS if move(state.layout, state.position, name) is not None)
        if self._view == "replace":
            return Observation(self._prompt(state), mode="replace", legal_actions=legal)
        return Observation(messages, legal_actions=legal)

    def on_text(self, text: str) -> str | None:
        """Take the last direction that the text names, where the agent acts in words."""
        if self._interface == "tool":
            return HOW_TO_ACT["tool"]
        named = re.findall(r"\b(up|down|left|right)\b", text.lower())
        return self.move(named[-1]) if named else f"{HOW_TO_ACT['text']}\n{self._view_text()}"

    def is_success(self) -> bool:
        """Say whether the puzzle is solved."""
        return is_solved(self.state.layout, self.state.position)

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Read the newest map that the agent was shown since it acted, and none that it wrote itself."""
        for message in reversed(messages):
            if message.role == "assistant":
                break
            found = read_view(message.text(), has_boxes=self._puzzle == "sokoban")
            if found != Reading():
                return found
        return Reading()

    def decide(self, observation: Observation) -> Message:
        """Take the next move of a shortest solution from where we are.

        Raises:
            ExpertStuck: there is none, as when a box was pushed into a corner.
        """
        state = self.state
        if not state.plan or state.planned_at != state.position:
            plan = solve(state.layout, state.position)
            if not plan:
                raise ExpertStuck("the puzzle can no longer be solved")
            state.plan = plan
        direction = state.plan.pop(0)
        state.planned_at = move(state.layout, state.position, direction)
        return says(direction) if self._interface == "text" else calls("move", direction=direction)

    def relabel(self, episode: Episode) -> list[Episode]:
        """Return the episode as one whose target is where it led: the last place that it reached by a short enough way.

        Where there are boxes, their places are the targets.
        """
        states = states_of(self, episode)
        return hindsight(self, episode, self._reached(states))

    def _reached(self, states: list[GridState]) -> Iterator[JSON]:
        """Yield the tasks to come to the places of some states from that of the first, the last place first."""
        start, tried = states[0], set()
        for state in reversed(states[1:]):
            targets = state.position.boxes or frozenset({state.position.player})
            if targets in tried:
                continue
            tried.add(targets)
            layout = replace(start.layout, targets=targets)
            solution = solve(layout, start.position) or []
            if len(solution) >= max(1, self._min_moves):
                rows = draw_map(layout, start.position)
                yield {"puzzle": start.puzzle, "map": rows, "max_moves": len(solution) + self._spare_moves}

    def _prompt(self, state: GridState) -> tuple[Message, ...]:
        rules = f"{RULES[state.puzzle]} {HOW_TO_ACT[self._interface]}"
        return system(rules), user(self._view_text(state))

    def _view_text(self, state: GridState | None = None) -> str:
        state = state or self.state
        lines = [" ".join(row) for row in draw_map(state.layout, state.position)]
        if self._coordinates:
            lines.append(f"You are at {_place(state.position.player)}.")
            lines += [f"A box is at {_place(box)}." for box in sorted(state.position.boxes)]
            lines += [f"A target is at {_place(target)}." for target in sorted(state.layout.targets)]
        lines.append(f"Moves left: {state.moves_left}.")
        return "\n".join(lines)


def _place(cell: Cell) -> str:
    return f"row {cell[0] + 1}, column {cell[1] + 1}"
