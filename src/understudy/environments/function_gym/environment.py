"""The environment around the gym: tasks, levels, and an expert that rules functions out."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from understudy.environments.base import Observation
from understudy.environments.interact import InteractEnvironment
from understudy.environments.tool_environment import calls
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .functions import Family, Function, Knowledge, to_text
from .gym import FunctionGym

LEVELS = {
    1: Family("+-"),
    2: Family("+-*", any_order=True),
    3: Family("+-*/", any_order=True, squares=True),
}

PROBES = ((1, 2, 4, 8), (2, 3, 5, 7), (7, 3, 11, 5), (3, 10, 2, 9), (13, 4, 6, 17), (19, 12, 8, 3), (5, 1, 9, 14))
"""Inputs that tell functions apart."""

INSTRUCTIONS = (
    "Find out a hidden function of four whole numbers. Act through the tool interact_with_env. action: try four "
    "numbers with spaces between them. search: write test to get the test case. answer: give the function's value at "
    "the test case."
)


class FunctionGymEnvironment(InteractEnvironment):
    """Discover a hidden function of four numbers and give its value at a test case.

    Args:
        level: 1 (sums and differences), 2 (also products, inputs in any order), 3 (also quotients and squares).
        max_rounds: the episode is truncated after so many steps.
        num_tasks, task_seed: see `ToolEnvironment`.

    Raises:
        ConfigError: the level is unknown, or there are no rounds.
    """

    instructions = INSTRUCTIONS

    def __init__(
        self,
        *,
        level: int = 2,
        max_rounds: int = 12,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        if max_rounds < 1:
            raise ConfigError(f"max_rounds is {max_rounds}; it is 1 at least")
        self._family = LEVELS[level]
        self._max_rounds = max_rounds
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_rounds)

    def make_gym(self) -> FunctionGym:
        """Return a new gym."""
        return FunctionGym(max_rounds=self._max_rounds)

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a function of the family and a test case at which it has a value."""
        family = self._family
        while True:
            operators = "".join(rng.choice(family.operators) for _ in range(3))
            function = Function(rng.choice(family.orders()), operators, rng.choice(family.squared()))
            test = [rng.randint(1, 20) for _ in range(4)]
            if function(test) is not None:
                return {
                    "function": function.text(),
                    "order": list(function.order),
                    "operators": operators,
                    "squared": list(function.squared),
                    "test": test,
                }

    def decide(self, observation: Observation) -> Message:
        """Get the test case, try numbers until all functions that are still possible agree on it, then answer."""
        gym = self.state.gym
        assert isinstance(gym, FunctionGym)
        if not gym.knows_test:
            return calls("interact_with_env", choice="search", content="test")
        knowledge = Knowledge(self._family)
        for inputs, output in gym.tried.items():
            knowledge.learn(inputs, None if output is None else float(to_text(output)))
        answers = knowledge.answers(gym.test)
        probe = self._best_probe(knowledge, gym) if len(answers) > 1 else None
        if probe is not None:
            return calls("interact_with_env", choice="action", content=" ".join(map(str, probe)))
        return calls("interact_with_env", choice="answer", content=to_text(answers[0]))

    def _best_probe(self, knowledge: Knowledge, gym: FunctionGym) -> tuple[int, ...] | None:
        """Return the untried numbers that would tell most functions apart; None where nothing tells any apart."""
        untried = [probe for probe in PROBES if probe not in gym.tried and probe != gym.test]
        num_outcomes = [len(knowledge.answers(probe)) for probe in untried]
        best = int(np.argmax(num_outcomes)) if untried else 0
        return untried[best] if untried and num_outcomes[best] > 1 else None
