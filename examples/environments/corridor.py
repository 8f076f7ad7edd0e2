"""An environment of one's own whose laws a tiny model learns in seconds: walk along a corridor to a door.

    understudy play examples/environments/corridor.py:Corridor --policy expert
    understudy collect environment.name=examples/environments/corridor.py:Corridor policy.name=random \\
        num_episodes=100 output_dir=walks

It has all that an environment may offer besides: an expert (for demonstrations and labels), `read` (for dreams and
plans) and `relabel` (for hindsight).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from understudy.environments import Observation, Reading, Toolbox, ToolEnvironment, says, split_tasks, system, user
from understudy.environments.relabelling import hindsight, states_of
from understudy.types import JSON, Episode, Message

LAST = 7
MOVES = {"left": -1, "right": 1}
TASKS: list[JSON] = [
    {"at": at, "door": door, "left": left}
    for at in range(LAST + 1)
    for door in range(LAST + 1)
    for left in range(abs(door - at), LAST + 3)
    if at != door
]
random.Random(0).shuffle(TASKS)


@dataclass
class Walk:
    """Where one is, where the door is, and how many moves are left."""

    at: int
    door: int
    left: int


class Corridor(ToolEnvironment[Walk]):
    """Walk to the door within a number of moves: left or right, one place at a time, and not beyond the ends."""

    def make_toolbox(self) -> Toolbox:
        return Toolbox()

    def tasks(self, split: str) -> list[JSON]:
        return split_tasks(TASKS, split)

    def draw_task(self, rng: random.Random) -> JSON:
        return rng.choice(TASKS)

    def begin(self, task: dict[str, int]) -> tuple[Walk, tuple[Message, ...]]:
        walk = Walk(**task)
        return walk, (system("Walk to the door: left or right."), user(seen(walk)))

    def observe(self, messages: tuple[Message, ...]) -> Observation:
        return Observation(messages, legal_actions=tuple(MOVES))

    def on_text(self, text: str) -> str | None:
        walk = self.state
        walk.at = min(max(walk.at + MOVES.get(text, 0), 0), LAST)
        walk.left -= 1
        if self.is_success():
            self.finish("there")
        elif walk.left == 0:
            self.finish("late")
        return seen(walk)

    def is_success(self) -> bool:
        return self.state.at == self.state.door

    def decide(self, observation: Observation) -> Message:
        """The expert: go where the door is."""
        return says("left" if self.state.door < self.state.at else "right")

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Read off the newest message how the walk stands: a real one or an imagined one, but none of the agent's."""
        newest = messages[-1]
        found = re.fullmatch(r"at (\d) door (\d) left (\d)", newest.text())
        if found is None or newest.role == "assistant":
            return Reading()
        walk = Walk(*map(int, found.groups()))
        if walk.at == walk.door:
            return Reading("there", 1.0)
        return Reading("late", 0.0) if walk.left == 0 else Reading()

    def relabel(self, episode: Episode) -> list[Episode]:
        """Return a walk as one to the place where it ended, or to another one that it reached before."""
        return hindsight(self, episode, self._reached(states_of(self, episode)))

    def _reached(self, walks: list[Walk]) -> Iterator[JSON]:
        """Yield the tasks to go to the places where a walk was, the last one first."""
        start = walks[0]
        for place in dict.fromkeys(walk.at for walk in reversed(walks)):
            if place != start.at:
                yield asdict(start) | {"door": place}


def seen(walk: Walk) -> str:
    """Return what is seen of a walk."""
    return f"at {walk.at} door {walk.door} left {walk.left}"
