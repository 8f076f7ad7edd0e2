"""The math environment: one question, a calculator, and an answer in words."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from understudy.environments.base import Observation
from understudy.environments.relabelling import hindsight, states_of
from understudy.environments.tool_environment import ToolEnvironment, calls, says, system, user
from understudy.environments.toolbox import Toolbox, ToolError
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Episode, Message

from .calculator import evaluate, to_text
from .problems import draw_expression, draw_story, problem_of

Kind = Literal["expression", "story"]
KINDS = {"expression": draw_expression, "story": draw_story}

INSTRUCTIONS = "Solve the problem. Work it out with the calculator, then reply with the number."

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,2}\b)?")


@dataclass(slots=True)
class MathState:
    """What has been computed, and what was answered."""

    expression: str
    answer: Fraction
    results: dict[str, str] = field(default_factory=dict)
    given: Fraction | None = None


class Math(ToolEnvironment[MathState]):
    """Word and expression problems with a calculator tool.

    The agent calls ``calculator(expression)`` as often as it likes. Its first message without a call is its answer; the
    last number in it counts.

    Args:
        kinds: ``expression`` ("Compute 3 * (4 + 5).") and ``story`` (word problems).
        min_operations: fewest operations of a problem.
        max_operations: most operations of a problem.
        max_operand: largest number in a problem.
        num_tasks, task_seed, max_steps: see `ToolEnvironment`.

    Raises:
        ConfigError: a kind is unknown, or a range is empty.
    """

    default_max_steps = 10

    def __init__(
        self,
        *,
        kinds: Sequence[Kind] = ("expression", "story"),
        min_operations: int = 1,
        max_operations: int = 3,
        max_operand: int = 99,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            near = did_you_mean(str(unknown[0]), KINDS) if unknown else ""
            raise ConfigError(f"kinds is {list(kinds)!r}.{near} Known: {', '.join(KINDS)}; name one at least")
        if not 1 <= min_operations <= max_operations <= 12:
            raise ConfigError(f"operations go from {min_operations} to {max_operations}; they go from 1 up to 12")
        if max_operand < 2:
            raise ConfigError(f"max_operand is {max_operand}; it is 2 at least")
        self._kinds = tuple(kinds)
        self._operations = (min_operations, max_operations)
        self._max_operand = max_operand
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)

    def make_toolbox(self) -> Toolbox:
        """Return the calculator."""
        return Toolbox(self.calculator)

    def calculator(self, expression: str) -> str:
        """Compute an arithmetic expression.

        Args:
            expression: numbers with + - * / ** and parentheses
        """
        try:
            result = to_text(evaluate(expression))
        except ValueError as error:
            raise ToolError(str(error)) from error
        self.state.results[expression] = result
        return result

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a problem with its expression and answer."""
        draw = KINDS[rng.choice(self._kinds)]
        num_operations = rng.randint(*self._operations)
        return asdict(draw(rng, num_operations=num_operations, max_operand=self._max_operand))

    def begin(self, task: Any) -> tuple[MathState, tuple[Message, ...]]:
        """Ask the question."""
        state = MathState(task["expression"], Fraction(task["answer"]))
        return state, (system(INSTRUCTIONS), user(task["question"]))

    def on_text(self, text: str) -> str | None:
        """Take the last number of the text as the answer."""
        self.state.given = last_number(text)
        self.finish("answered")
        return None

    def is_success(self) -> bool:
        """Say whether the answer is right."""
        return self.state.given == self.state.answer

    def decide(self, observation: Observation) -> Message:
        """Compute the problem's expression, then say the result."""
        state = self.state
        if state.expression not in state.results:
            return calls("calculator", expression=state.expression)
        return says(f"The answer is {state.results[state.expression]}.")

    def relabel(self, episode: Episode) -> list[Episode]:
        """Return the episode as the answer to what was computed: "Compute E." for the expression E of its last call.

        That is asked for only where expressions are, and as they are written there.
        """
        if "expression" not in self._kinds:
            return []
        results = states_of(self, episode)[-1].results
        problems = [
            problem_of(expression, num_operations=self._operations, max_operand=self._max_operand)
            for expression in reversed(results)
        ]
        return hindsight(self, episode, [asdict(problem) for problem in problems if problem is not None])


def last_number(text: str) -> Fraction | None:
    """Return the last number that is written in a text; commas may group its digits. None where there is none."""
    found = _NUMBER.findall(text)
    try:
        return Fraction(found[-1].replace(",", "")) if found else None
    except ValueError:  # more digits than Python converts
        return None
