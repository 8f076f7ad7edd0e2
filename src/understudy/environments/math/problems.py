"""Problems whose answers are whole numbers: bare expressions, and stories that a chain of sums tells."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from dataclasses import dataclass

from .calculator import evaluate

# fmt: off
NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Ella", "Finn", "Gia", "Hugo", "Ines", "Jon", "Kira", "Liam", "Mona", "Nils", "Olga",
    "Paul", "Rosa", "Sami", "Tara", "Umar", "Vera", "Will", "Yara", "Zoe",
)
THINGS = (
    "apples", "marbles", "stamps", "books", "shells", "coins", "pencils", "cards", "beads", "stickers", "buttons",
    "tickets", "stones", "flowers", "candles", "photos",
)
# fmt: on

_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, an expression that answers it, and the answer."""

    question: str
    expression: str
    answer: int


def draw_expression(rng: random.Random, *, num_operations: int, max_operand: int) -> Problem:
    """Return a problem that asks for the value of an expression."""
    while True:
        text = _expression(rng, num_operations, max_operand)
        value = _whole(text)
        if value is not None:
            return Problem(f"Compute {text}.", text, value)


def problem_of(expression: str, *, num_operations: tuple[int, int], max_operand: int) -> Problem | None:
    """Return the problem that an expression answers; None where `draw_expression` would not ask for it.

    Args:
        num_operations: fewest and most.
    """
    try:
        written, num = _rewritten(ast.parse(expression, mode="eval").body, max_operand)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    value = _whole(expression)
    is_usual = written == expression and num_operations[0] <= num <= num_operations[1]
    if value is None or not is_usual:
        return None
    return Problem(f"Compute {expression}.", expression, value)


def draw_story(rng: random.Random, *, num_operations: int, max_operand: int) -> Problem:
    """Return a word problem about one person's things, told in `num_operations` sentences."""
    name, thing, friend = rng.choice(NAMES), rng.choice(THINGS), rng.choice(NAMES)
    while friend == name:
        friend = rng.choice(NAMES)
    start = rng.randint(2, max_operand)
    sentences, expression, value, is_sum = [f"{name} has {start} {thing}."], str(start), start, False
    for _ in range(num_operations):
        event = rng.choice([event for event in _EVENTS if event.can_happen(value)])
        number = event.draw(rng, value, max_operand)
        sentences.append(event.sentence.format(name=name, friend=friend, thing=thing, **number))
        if event.binds_tightly and is_sum:
            expression = f"({expression})"
        expression = event.expression.format(so_far=expression, **number)
        is_sum = not event.binds_tightly
        value = int(evaluate(expression))
    question = f"{' '.join(sentences)} How many {thing} does {name} have now?"
    return Problem(question, expression, value)


def _expression(rng: random.Random, num_operations: int, max_operand: int) -> str:
    """Return a random expression, with parentheses where a sum stands inside a product or behind a minus."""
    if num_operations == 0:
        return str(rng.randint(1, max_operand))
    on_left = rng.randrange(num_operations)
    sign = rng.choice("+-*/")
    left = _expression(rng, on_left, max_operand)
    right = _expression(rng, num_operations - 1 - on_left, max_operand)
    return _joined(left, sign, right)


def _joined(left: str, sign: str, right: str) -> str:
    if sign in "*/" and not left.isdigit():
        left = f"({left})"
    if sign != "+" and not right.isdigit():
        right = f"({right})"
    return f"{left} {sign} {right}"


def _rewritten(node: ast.expr, max_operand: int) -> tuple[str, int]:
    """Return an expression as problems write it, and its number of operations.

    Raises:
        ValueError: problems hold no such thing.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int and 1 <= node.value <= max_operand:
        return str(node.value), 0
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        (left, on_left), (right, on_right) = (_rewritten(side, max_operand) for side in (node.left, node.right))
        return _joined(left, _SIGNS[type(node.op)], right), on_left + on_right + 1
    raise ValueError(f"{ast.unparse(node)!r} stands in no problem")


def _whole(expression: str) -> int | None:
    try:
        value = evaluate(expression)
    except ValueError:
        return None
    return value.numerator if value.denominator == 1 and abs(value) < 10**9 else None


@dataclass(frozen=True, slots=True)
class _Event:
    """One thing that happens to the person's things."""

    sentence: str
    expression: str
    draw: Callable[[random.Random, int, int], dict[str, int]]
    can_happen: Callable[[int], bool]
    binds_tightly: bool


def _always(value: int) -> bool:
    return value < 10**6


def _draw_two(rng: random.Random, value: int, most: int) -> dict[str, int]:
    return {"a": rng.randint(2, max(2, min(12, most))), "b": rng.randint(2, max(2, min(20, most)))}


def _draw_divisor(rng: random.Random, value: int, most: int) -> dict[str, int]:
    return {"a": rng.choice([a for a in range(2, 13) if value % a == 0])}


_EVENTS = (
    _Event("{name} finds {a} more {thing}.", "{so_far} + {a}", lambda r, v, m: {"a": r.randint(1, m)}, _always, False),
    _Event("{name} buys {a} bags with {b} {thing} in each.", "{so_far} + {a} * {b}", _draw_two, _always, False),
    _Event(
        "{name} gives {a} {thing} to {friend}.",
        "{so_far} - {a}",
        lambda r, v, m: {"a": r.randint(1, min(v - 1, m))},
        lambda value: value > 1,
        False,
    ),
    _Event(
        "{name} trades the {thing} for {a} times as many.",
        "{so_far} * {a}",
        lambda r, v, m: {"a": r.randint(2, 5)},
        _always,
        True,
    ),
    _Event(
        "{name} shares the {thing} equally among {a} people and keeps one share.",
        "{so_far} / {a}",
        _draw_divisor,
        lambda value: any(value % a == 0 for a in range(2, 13)) and value > 0,
        True,
    ),
)
