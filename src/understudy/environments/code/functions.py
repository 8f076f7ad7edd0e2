"""Functions made of operations: what they give, how they are told, how they are solved, and how they are JSON."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from understudy.types import JSON

from .operations import CONDITIONS, DESCRIPTIONS, OPERATIONS, Constants, Kind, Operation, fill


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its constants."""

    name: str
    operation: Operation
    constants: Constants

    @property
    def words(self) -> str:
        """It in words."""
        return fill(self.operation.words, self.constants)

    @property
    def expression(self) -> str:
        """It in Python."""
        return fill(self.operation.expression, self.constants)

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """What it takes, and what it gives."""
        return self.operation.takes, self.operation.gives

    def compiled(self) -> Callable[[JSON], JSON]:
        """Return it as a Python function."""
        return _compiled(self.expression)

    def task(self) -> dict[str, JSON]:
        """Return it as JSON."""
        return {"do": self.name, **self.constants}


@dataclass(frozen=True, slots=True)
class Branch:
    """One step or another, as a condition says."""

    condition: Step
    then: Step
    otherwise: Step

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """What it takes, and what it gives."""
        return self.then.kinds

    def compiled(self) -> Callable[[JSON], JSON]:
        """Return it as a Python function."""
        condition, then, otherwise = self.condition.compiled(), self.then.compiled(), self.otherwise.compiled()
        return lambda x: then(x) if condition(x) else otherwise(x)

    def task(self) -> dict[str, JSON]:
        """Return it as JSON."""
        return {"if": self.condition.task(), "then": self.then.task(), "else": self.otherwise.task()}


@dataclass(frozen=True, slots=True)
class Function:
    """A function of x: steps, one after the other, each of which takes what the one before gave."""

    steps: tuple[Step | Branch, ...]

    @property
    def takes(self) -> Kind:
        """The kind of its argument."""
        return self.steps[0].kinds[0]

    def compiled(self) -> Callable[[JSON], JSON]:
        """Return it as a Python function, which leaves its argument as it is."""
        steps = [step.compiled() for step in self.steps]

        def function(x: JSON) -> JSON:
            for step in steps:
                x = step(x)
            return x

        return function

    def description(self) -> str:
        """Return it in words."""
        sentences = [f"x is {DESCRIPTIONS[self.takes]}."]
        for step in self.steps[:-1]:
            sentences.append(f"{_told(step, 'let x be')}.")
        sentences.append(f"{_told(self.steps[-1], 'return')}.")
        return " ".join(sentence[0].upper() + sentence[1:] if i else sentence for i, sentence in enumerate(sentences))

    def solution(self) -> str:
        """Return it in Python: one line where it is one step, else one line or four for each."""
        if len(self.steps) == 1 and isinstance(self.steps[0], Step):
            return f"def f(x): return {self.steps[0].expression}"
        lines = [line for i, step in enumerate(self.steps) for line in _lines(step, i == len(self.steps) - 1)]
        return "\n".join(["def f(x):", *(f"    {line}" for line in lines)])

    def task(self) -> JSON:
        """Return it as JSON."""
        return {"function": [step.task() for step in self.steps]}


def _told(step: Step | Branch, verb: str) -> str:
    if isinstance(step, Step):
        return f"{verb} {step.words}"
    return f"if {step.condition.words}, {verb} {step.then.words}; else {verb} {step.otherwise.words}"


def _lines(step: Step | Branch, is_last: bool) -> list[str]:
    start = "return" if is_last else "x ="
    if isinstance(step, Step):
        return [f"{start} {step.expression}"]
    then, otherwise = f"    {start} {step.then.expression}", f"    {start} {step.otherwise.expression}"
    return [f"if {step.condition.expression}:", then, "else:", otherwise]


@functools.lru_cache(maxsize=4096)
def _compiled(expression: str) -> Callable[[JSON], JSON]:
    """Return a function of x. The expression is one of `operations` with constants that fit, and never a model's."""
    function: Callable[[JSON], JSON] = eval(f"lambda x: {expression}")
    return function


def read_function(task: Any) -> Function:
    """Return the function of a task.

    Raises:
        KeyError, TypeError, ValueError: it is no task; nothing in it but known names and fitting constants is taken.
    """
    steps = tuple(_read_step(step) for step in task["function"])
    for before, after in itertools.pairwise(steps):
        if before.kinds[1] != after.kinds[0]:
            raise ValueError("a step does not take what the step before gives")
    if not steps:
        raise ValueError("a function has one step at least")
    return Function(steps)


def _read_step(step: dict[str, Any]) -> Step | Branch:
    if "if" not in step:
        return _read_operation(step, OPERATIONS)
    condition = _read_operation(step["if"], CONDITIONS)
    then, otherwise = (_read_operation(step[way], OPERATIONS) for way in ("then", "else"))
    if then.kinds != otherwise.kinds or condition.operation.takes != then.operation.takes:
        raise ValueError("the ways of a branch are of different kinds")
    return Branch(condition, then, otherwise)


def _read_operation(step: dict[str, Any], table: dict[str, Operation]) -> Step:
    constants = {key: value for key, value in step.items() if key != "do"}
    operation = table[step["do"]]
    if not operation.is_allowed(constants):
        raise ValueError(f"constants that do not fit {step['do']}")
    return Step(step["do"], operation, constants)
