"""The corridor of the examples, but shorter and with five moves for every walk: few tasks, learnt in seconds."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from understudy.environments import Observation, Reward, Step, system, user
from understudy.environments.reading import Reading
from understudy.policies import Action, Context, Policy
from understudy.types import JSON, Message

LAST = 5
MOVES = {"left": -1, "right": 1}


class Corridor:
    """Walk to the door within a number of moves: left or right, one place at a time, and not beyond the ends."""

    agents = ("agent",)

    def tasks(self, split: str) -> Sequence[JSON]:
        every = [
            {"at": at, "door": door, "left": 5} for at in range(LAST + 1) for door in range(LAST + 1) if at != door
        ]
        return every[::2] if split == "train" else every[1::2]

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        self.now = dict(task)
        messages = (system("Walk to the door: left or right."), user(self._seen()))
        return Step({"agent": Observation(messages)}, success={"agent": False})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        now = self.now
        now["at"] = min(max(now["at"] + MOVES.get(actions["agent"].text(), 0), 0), LAST)
        now["left"] -= 1
        there = now["at"] == now["door"]
        over = there or now["left"] == 0
        return Step(
            {"agent": Observation((user(self._seen()),))},
            {"agent": Reward(float(there))} if over else {},
            terminated=over,
            success={"agent": there},
            stop_reason=("there" if there else "late") if over else None,
        )

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        newest = messages[-1]
        found = re.fullmatch(r"at (\d) door (\d) left (\d)", newest.text())
        if found is None or newest.role == "assistant":
            return Reading()
        at, door, left = found.groups()
        return Reading("there", 1.0) if at == door else Reading("late", 0.0) if left == "0" else Reading()

    async def close(self) -> None: ...

    def _seen(self) -> str:
        return f"at {self.now['at']} door {self.now['door']} left {self.now['left']}"


class Wanderer(Policy):
    """Walks at random."""

    name = "wanderer"

    async def act(self, context: Context) -> Action:
        return Action(Message("assistant", random.Random(context.seed).choice(list(MOVES))))


class Blind:
    """The same without what a dream can borrow."""

    agents = ("agent",)

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        return Step({"agent": Observation((user("at 0 door 3 left 5"),))})

    async def step(self, actions: Mapping[str, Message]) -> Step:
        return Step(terminated=True)

    async def close(self) -> None: ...
