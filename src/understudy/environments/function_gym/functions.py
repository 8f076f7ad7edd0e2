"""The family of hidden functions, and the knowledge that remains of one after it was tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DECIMALS = 4
_ROUNDING = 10.0**-DECIMALS
_EPSILONS = 8 * float(np.finfo(np.float64).eps)
"""What a few steps of floating point can be wrong by, as a share of the largest number among them."""


@dataclass(frozen=True, slots=True)
class Family:
    """All functions ``((x0 ∘ x1) ∘ x2) ∘ x3`` of four numbers that use some operators.

    Args:
        operators: which of ``+-*/`` may stand for each ∘.
        any_order: x0 to x3 are the inputs in any order; else in the order in which they are given.
        squares: each x may be the square of its input.
    """

    operators: str = "+-"
    any_order: bool = False
    squares: bool = False

    def orders(self) -> list[tuple[int, ...]]:
        """Return the orders in which the inputs may be used."""
        return list(itertools.permutations(range(4))) if self.any_order else [(0, 1, 2, 3)]

    def squared(self) -> list[tuple[bool, ...]]:
        """Return which of x0 to x3 may be squared together."""
        return list(itertools.product((False, True), repeat=4)) if self.squares else [(False,) * 4]


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a family."""

    order: tuple[int, ...]
    operators: str
    squared: tuple[bool, ...]

    def __call__(self, inputs: Sequence[int]) -> Fraction | None:
        """Return the exact value; None where it divides by zero."""
        values = [
            Fraction(inputs[index]) ** (2 if squared else 1)
            for index, squared in zip(self.order, self.squared, strict=True)
        ]
        result = values[0]
        for operator, value in zip(self.operators, values[1:], strict=True):
            if operator == "/" and value == 0:
                return None
            result = (
                result + value if operator == "+"
                else result - value if operator == "-"
                else result * value if operator == "*"
                else result / value
            )  # fmt: skip
        return result

    def text(self) -> str:
        """Return the function as a formula of a, b, c and d."""
        names = ["abcd"[i] + ("^2" if squared else "") for i, squared in zip(self.order, self.squared, strict=True)]
        first, second, third = list(self.operators)
        return f"(({names[0]} {first} {names[1]}) {second} {names[2]}) {third} {names[3]}"


def to_text(value: Fraction | float) -> str:
    """Return a number with at most four decimals."""
    text = f"{float(value):.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


class Knowledge:
    """Which functions of a family agree with everything that was seen."""

    def __init__(self, family: Family) -> None:
        self._table = _table(family)
        self._possible = np.ones(len(self._table.order), bool)

    def learn(self, inputs: Sequence[int], output: float | None) -> None:
        """Rule out what would have given another output; None means a division by zero."""
        values = self._table.values(inputs)
        if output is None:
            self._possible &= ~np.isfinite(values)
        else:
            largest = math.prod(max(2.0, float(number) ** 2) for number in inputs)  # no step gives more than this
            self._possible &= np.abs(values - output) <= max(_ROUNDING, _EPSILONS * largest)

    def answers(self, inputs: Sequence[int]) -> NDArray[np.float64]:
        """Return the different values that the possible functions have there, to four decimals; NaN for none."""
        return np.unique(np.round(self._table.values(inputs)[self._possible], DECIMALS))


@dataclass(frozen=True, slots=True)
class _Table:
    """A whole family: order and squared are [functions, 4], operators [functions, 3]."""

    order: NDArray[np.int64]
    operators: NDArray[np.str_]
    squared: NDArray[np.bool_]

    def values(self, inputs: Sequence[int]) -> NDArray[np.float64]:
        """Return the value of every function; NaN where it divides by zero."""
        chosen = np.asarray(inputs, np.float64)[self.order]
        chosen = np.where(self.squared, chosen**2, chosen)
        result = chosen[:, 0]
        for i in range(3):
            operator, value = self.operators[:, i], chosen[:, i + 1]
            safe = np.where(value == 0, np.nan, value)
            result = np.select(
                [operator == "+", operator == "-", operator == "*"],
                [result + value, result - value, result * value],
                result / safe,
            )
        return result


@lru_cache(maxsize=8)
def _table(family: Family) -> _Table:
    rows = list(itertools.product(family.orders(), itertools.product(family.operators, repeat=3), family.squared()))
    orders, operators, squared = zip(*rows, strict=True)
    return _Table(np.array(orders), np.array(operators), np.array(squared))
