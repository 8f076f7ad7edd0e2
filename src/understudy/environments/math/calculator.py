"""A calculator that is exact: it parses arithmetic, computes with fractions, and refuses everything else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

MAX_CHARACTERS = 500
MAX_EXPONENT = 64
MAX_DIGITS = 200
DECIMAL_DIGITS = 10

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}


def evaluate(expression: str) -> Fraction:
    """Return the exact value of an expression of numbers, ``+ - * / // % **`` and parentheses.

    Raises:
        ValueError: it is something else, divides by zero, or is too large.
    """
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"the expression has more than {MAX_CHARACTERS} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body)
    except SyntaxError:
        raise ValueError(f"{expression!r} is not an expression; write numbers, + - * / ** and parentheses") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (RecursionError, MemoryError):
        raise ValueError("the expression is nested too deeply") from None


def to_text(value: Fraction) -> str:
    """Return a whole number in full, and any other with ten significant digits, the last one rounded."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.{DECIMAL_DIGITS}g}"


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](left, right))
    raise ValueError(f"{ast.unparse(node)!r} is not arithmetic; write numbers, + - * / ** and parentheses")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
        raise ValueError(f"an exponent is a whole number up to {MAX_EXPONENT}")
    return _bounded(Fraction(base ** int(exponent)))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_DIGITS * 10 // 3:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return value
