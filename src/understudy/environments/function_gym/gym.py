"""The gym itself: gymnasium's interface, with actions that are texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from understudy.environments.interact import FiveTuple

from .functions import Function, to_text

TOLERANCE = 1e-3

OPENING = "I have chosen a function of four numbers. Find out what it gives for the test case."

_ACTION = re.compile(r"\s*\[(action|answer|search)\]\s*(.*)", re.DOTALL)


class FunctionGym:
    """A hidden function of four whole numbers.

    ``[action] 1 2 3 4`` gives its value there, ``[search] test`` the test case, and ``[answer] 22`` ends the episode
    when it is the value at the test case. The reward is 1 for that and 0 for all else.

    Args:
        max_rounds: the episode is truncated after so many steps.
    """

    def __init__(self, *, max_rounds: int = 12) -> None:
        self.max_rounds = max_rounds
        self.num_rounds = 0
        self.tried: dict[tuple[int, ...], Fraction | None] = {}
        self.knows_test = False
        self._function: Function | None = None
        self.test: tuple[int, ...] = ()

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Hide the function of ``options["task"]``.

        Raises:
            KeyError: the task lacks something.
        """
        task = (options or {})["task"]
        self._function = Function(tuple(task["order"]), task["operators"], tuple(task["squared"]))
        self.test = tuple(task["test"])
        self.num_rounds, self.tried, self.knows_test = 0, {}, False
        return OPENING, {"success": False}

    def step(self, action: str) -> FiveTuple:
        """Take an action ``"[choice] content"``."""
        self.num_rounds += 1
        matched = _ACTION.fullmatch(action)
        if matched is None:
            feedback, success = "Write [action], [answer] or [search], and what goes with it.", False
        elif matched[1] == "answer":
            feedback, success = self._answer(matched[2])
        else:
            feedback, success = (self._try if matched[1] == "action" else self._search)(matched[2]), False
        truncated = not success and self.num_rounds >= self.max_rounds
        info = {"success": success, "stop_reason": "answered" if success else "max_rounds" if truncated else None}
        return feedback, float(success), success, truncated, info

    def _try(self, content: str) -> str:
        numbers = re.findall(r"-?\d{1,9}", content)
        if len(numbers) != 4 or re.sub(r"[-\d\s,]", "", content):
            return "Give four whole numbers with spaces between them."
        inputs = tuple(map(int, numbers))
        if inputs == self.test:
            return "That is the test case. Try other numbers."
        assert self._function is not None, "reset comes first"
        value = self.tried[inputs] = self._function(inputs)
        return "It divides by zero." if value is None else to_text(value)

    def _search(self, content: str) -> str:
        if content.strip().lower() != "test":
            return "Only the test case can be searched for: test."
        self.knows_test = True
        return " ".join(map(str, self.test))

    def _answer(self, content: str) -> tuple[str, bool]:
        assert self._function is not None, "reset comes first"
        right = self._function(self.test)
        try:
            given = float(content)
        except ValueError:
            return "Give one number.", False
        if right is not None and math.isclose(given, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return "That is right.", True
        return "That is wrong.", False
