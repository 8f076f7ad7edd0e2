"""Drawing functions and their tests.

A function is kept only when its tests tell it from its neighbours: what it would be with another constant, with one way
of a branch only, or without one of its steps. So whoever passes the tests has read the whole description.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from understudy.environments.tasks import task_key
from understudy.types import JSON

from .functions import Branch, Function, Step
from .operations import CONDITIONS, LETTERS, OPERATIONS, SHORT, WORDS, Kind, Operation

LEVELS = (1, 2, 3)

NUM_EXAMPLES = 2
NUM_TESTS = 14
"""The examples included."""

MAX_DRAWS = 60
"""So many arguments are drawn for the tests; a function for which they do not do is not kept."""

MAX_NUMBER = 10**6
MAX_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Test:
    """An argument, and what the function gives for it."""

    argument: JSON
    expected: JSON


def draw_function(rng: random.Random, level: int) -> Function:
    """Return a function: at level 1 of one short step, at 2 of two or three steps, at 3 with a branch among them."""
    while True:
        function = Function(tuple(_draw_steps(rng, level)))
        if is_well_tested(function):
            return function


def draw_tests(function: Function) -> list[Test]:
    """Return the tests of a function: first the examples that an agent is shown, then the hidden ones.

    They depend on the function and nothing else, so it has the same tests in every task set. There are fewer than
    `NUM_TESTS` where it has too few short values.
    """
    rng = random.Random(task_key(function.task()))
    constants = [value for step in _plain_steps(function) for value in step.constants.values()]
    source = _Source(rng, [c for c in constants if isinstance(c, int)], [c for c in constants if isinstance(c, str)])
    compiled = function.compiled()
    tests: list[Test] = []
    for _ in range(MAX_DRAWS):
        argument = source.draw(function.takes)
        expected = compiled(argument)
        if all(test.argument != argument for test in tests) and _is_short(expected):
            tests.append(Test(argument, expected))
        if len(tests) == NUM_TESTS:
            break
    # Examples should tell something, and an empty list or text tells little.
    return sorted(tests, key=lambda test: not (test.argument and test.expected))


def is_well_tested(function: Function) -> bool:
    """Say whether the tests of a function are enough, and fail each of its neighbours."""
    tests = draw_tests(function)
    return len(tests) == NUM_TESTS and not any(passes(neighbour, tests) for neighbour in neighbours(function))


def passes(function: Function, tests: list[Test]) -> bool:
    """Say whether a function gives what the tests expect."""
    compiled = function.compiled()
    return all(compiled(test.argument) == test.expected for test in tests)


def neighbours(function: Function) -> Iterator[Function]:
    """Yield the functions that are wrong in one place: a constant, a way of a branch, a step left out."""
    for position, step in enumerate(function.steps):
        before, after = function.steps[:position], function.steps[position + 1 :]
        for changed in _changed(step):
            yield Function((*before, changed, *after))
        if (before or after) and step.kinds[0] == step.kinds[1]:
            yield Function((*before, *after))


def _changed(step: Step | Branch) -> Iterator[Step | Branch]:
    if isinstance(step, Branch):
        yield from (step.then, step.otherwise)
        yield from (replace(step, condition=changed) for changed in _other_constants(step.condition))
        yield from (replace(step, then=changed) for changed in _other_constants(step.then))
        yield from (replace(step, otherwise=changed) for changed in _other_constants(step.otherwise))
    else:
        yield from _other_constants(step)


def _other_constants(step: Step) -> Iterator[Step]:
    for gap, value in step.constants.items():
        others = [value + 1, value - 1] if isinstance(value, int) else _next_to(value)
        for other in others:
            constants = step.constants | {gap: other}
            if step.operation.is_allowed(constants):
                yield replace(step, constants=constants)
                break


def _next_to(text: str) -> list[str]:
    pool = LETTERS if len(text) == 1 else WORDS
    position = pool.index(text)
    return [pool[(position + 1) % len(pool)], pool[(position + 2) % len(pool)]]


def _draw_steps(rng: random.Random, level: int) -> Iterator[Step | Branch]:
    if level == 1:
        yield _draw_step(rng, SHORT)
        return
    num_steps = rng.randint(2, 3)
    branch_at = rng.randrange(num_steps) if level == 3 else None
    kind = rng.choice([operation.takes for operation in OPERATIONS.values()])
    for position in range(num_steps):
        step = _draw_step(rng, OPERATIONS, takes=kind)
        kind = step.operation.gives
        if position == branch_at:
            condition = _draw_step(rng, CONDITIONS, takes=step.operation.takes)
            yield Branch(condition, step, _draw_step(rng, OPERATIONS, takes=step.operation.takes, gives=kind))
        else:
            yield step


def _draw_step(
    rng: random.Random, table: dict[str, Operation], takes: Kind | None = None, gives: Kind | None = None
) -> Step:
    name = rng.choice([n for n, o in table.items() if takes in (None, o.takes) and gives in (None, o.gives)])
    return Step(name, table[name], table[name].draw(rng))


def _plain_steps(function: Function) -> Iterator[Step]:
    for step in function.steps:
        yield from (step,) if isinstance(step, Step) else (step.condition, step.then, step.otherwise)


def _is_short(value: JSON) -> bool:
    """Say whether a value can be shown."""
    if isinstance(value, int):
        return abs(value) <= MAX_NUMBER
    return len(repr(value)) <= MAX_LENGTH


@dataclass(frozen=True, slots=True)
class _Source:
    """Draws arguments, often with a function's constants in them: there it is that functions differ.

    Args:
        rng: the chances.
        numbers, texts: the constants.
    """

    rng: random.Random
    numbers: list[int]
    texts: list[str]

    def draw(self, kind: Kind) -> JSON:
        """Return an argument."""
        if kind == "number":
            return self._number()
        if kind == "text":
            return " ".join(self._word() for _ in range(self.rng.choice((0, 1, 1, 1, 2, 2, 3))))
        if kind == "table":
            return {self._word(): self._number() for _ in range(self.rng.randint(0, 4))}
        draw = self._number if kind == "numbers" else self._word
        items = [draw() for _ in range(self.rng.randint(0, 5))]
        return [*items, self.rng.choice(items)] if items and self.rng.random() < 0.3 else items

    def _number(self) -> int:
        if self.numbers and self.rng.random() < 0.5:
            number = self.rng.choice(self.numbers)
            return number * self.rng.choice((1, 1, 1, 2)) + self.rng.choice((-1, 0, 0, 1))
        return self.rng.randint(-20, 120)

    def _word(self) -> str:
        chance = self.rng.random()
        words = [text for text in self.texts if len(text) > 1]
        letters = [text for text in self.texts if len(text) == 1]
        if words and chance < 0.4:
            return self.rng.choice(words)
        word = self.rng.choice(WORDS)
        if letters and chance < 0.8:
            position = self.rng.randrange(len(word) + 1)
            return word[:position] + self.rng.choice(letters) + word[position:]
        return word
