"""What functions are made of: operations on one value, each with its words and its Python.

An operation is the one place where its meaning stands. Its expression is both what a right solution says and what gives
the expected values. The gaps of its texts are filled with constants, and the letter of a gap says which: ``m`` and
``n`` small numbers, ``a`` and ``b`` numbers, ``p`` and ``q`` letters, ``v`` and ``w`` words.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "text", "numbers", "words", "table"]

DESCRIPTIONS: dict[Kind, str] = {
    "number": "a number",
    "text": "a text",
    "numbers": "a list of numbers",
    "words": "a list of words",
    "table": "a dict of words and numbers",
}

Constants = dict[str, int | str]

RANGES = {"m": (2, 20), "n": (2, 5), "a": (1, 99), "b": (1, 99)}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = """
ant arm bag bat bed bee bell bird boat bone book bowl box bread brush bus cake camp card cat chair clock cloud coat
coin corn cow crab cup deer desk dish dog door drum duck ear egg eye fan farm fig fire fish flag fork fox frog game
gate goat gold grape grass hand hat hen hill home horn horse ice ink iron jam jar key king kite knife lake lamp
leaf leg lemon lion lip milk mint moon mouse nest net night nose oak oil owl pan park pea pear pen piano pig pin
plum pond pot rain ring river road rock roof room root rope rose sail salt sand seed sheep ship shoe silk snow soap
song spoon star stone sugar sun swan tail tea tent toad tower town train tree vase violin wall wave wheel wind wolf
wood wool yard
"""
WORDS = tuple(_WORDS.split())

_GAP = re.compile(r"\{([a-z])\}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a function, or one condition.

    Args:
        takes, gives: the kinds of value before and after; a condition gives a truth, and the kind stays.
        words: what it gives, as a noun phrase; a condition, as a clause.
        expression: the same in Python, of x.
    """

    takes: Kind
    gives: Kind
    words: str
    expression: str

    @property
    def gaps(self) -> list[str]:
        """The letters of the constants, in alphabetical order."""
        return sorted(set(_GAP.findall(self.expression)))

    def draw(self, rng: random.Random) -> Constants:
        """Return constants for its gaps: different ones, the smaller number first."""
        while True:
            constants = {gap: _draw_constant(rng, gap) for gap in self.gaps}
            if self.is_allowed(constants):
                return constants

    def is_allowed(self, constants: Constants) -> bool:
        """Say whether constants fit its gaps."""
        if sorted(constants) != self.gaps or not all(_fits(gap, value) for gap, value in constants.items()):
            return False
        a, b = constants.get("a"), constants.get("b")
        is_ordered = a < b if isinstance(a, int) and isinstance(b, int) else True
        return is_ordered and ("q" not in constants or constants["q"] != constants["p"])


def _draw_constant(rng: random.Random, gap: str) -> int | str:
    if gap in RANGES:
        return rng.randint(*RANGES[gap])
    return rng.choice(LETTERS if gap in "pq" else WORDS)


def _fits(gap: str, value: object) -> bool:
    if gap in RANGES:
        return type(value) is int and RANGES[gap][0] <= value <= RANGES[gap][1]
    return value in WORDS if gap in "vw" else type(value) is str and len(value) == 1 and value in LETTERS


def fill(template: str, constants: Constants) -> str:
    """Return a text with its gaps filled, as Python writes the constants. Other braces stay."""
    return _GAP.sub(lambda gap: repr(constants[gap[1]]), template)


def _table(takes: Kind, gives: Kind, rows: dict[str, tuple[str, str]]) -> dict[str, Operation]:
    return {name: Operation(takes, gives, words, expression) for name, (words, expression) in rows.items()}


SHORT: dict[str, Operation] = {
    **_table("number", "number", {
        "times_plus": ("x times {m}, plus {a}", "x * {m} + {a}"),
        "times_minus": ("x times {m}, minus {a}", "x * {m} - {a}"),
        "plus_times": ("the sum of x and {a}, times {m}", "(x + {a}) * {m}"),
        "minus_times": ("{a}, minus x times {m}", "{a} - x * {m}"),
        "remainder_plus": ("the remainder of x by {m}, plus {a}", "x % {m} + {a}"),
    }),
    **_table("text", "text", {
        "around": ("{v}, then x, then {w}", "{v} + x + {w}"),
        "replace": ("x with every {p} replaced by {q}", "x.replace({p}, {q})"),
        "repeat_then": ("x written {n} times, then {w}", "x * {n} + {w}"),
    }),
    **_table("numbers", "numbers", {
        "each_times_plus": ("each number of x times {m}, plus {a}", "[i * {m} + {a} for i in x]"),
        "between": ("the numbers of x from {a} to {b}", "[i for i in x if {a} <= i <= {b}]"),
    }),
    **_table("table", "number", {"get": ("the value of {w} in x, or {a} without it", "x.get({w}, {a})")}),
    **_table("table", "table", {"put": ("x with {w} set to {a}", "{**x, {w}: {a}}")}),
}  # fmt: skip
"""The operations of the first level."""

OPERATIONS: dict[str, Operation] = {
    **SHORT,
    **_table("number", "number", {
        "plus": ("x plus {a}", "x + {a}"),
        "minus_from": ("{a} minus x", "{a} - x"),
        "quotient": ("x divided by {m}, rounded down", "x // {m}"),
        "at_least": ("x, but {a} at least", "max(x, {a})"),
        "at_most": ("x, but {a} at most", "min(x, {a})"),
        "square_plus": ("the square of x, plus {a}", "x * x + {a}"),
        "digit_sum": ("the sum of the digits of x", "sum(int(d) for d in str(abs(x)))"),
        "distance": ("the distance of x from {a}", "abs(x - {a})"),
    }),
    **_table("number", "text", {
        "to_text": ("x as a text", "str(x)"),
        "padded": ("x as a text, filled with zeros to {n} characters", "str(x).zfill({n})"),
        "binary": ("x in binary digits", "format(x, 'b')"),
    }),
    **_table("number", "numbers", {
        "digits": ("the list of the digits of x", "[int(d) for d in str(abs(x))]"),
        "multiples": ("the numbers from 0 up to but not including x, in steps of {m}", "list(range(0, x, {m}))"),
    }),
    **_table("text", "text", {
        "reverse_text": ("x backwards", "x[::-1]"),
        "upper": ("x in capitals", "x.upper()"),
        "before": ("{w}, then x", "{w} + x"),
        "first": ("the first {n} characters of x", "x[:{n}]"),
        "last": ("the last {n} characters of x", "x[-{n}:]"),
        "drop": ("x without its first {n} characters", "x[{n}:]"),
        "every": ("every character of x whose position is a multiple of {n}, from 0", "x[::{n}]"),
        "without_letter": ("x without any {p}", "x.replace({p}, '')"),
        "sorted_text": ("the characters of x in order", "''.join(sorted(x))"),
        "distinct_text": ("x with only the first of equal characters", "''.join(dict.fromkeys(x))"),
    }),
    **_table("text", "number", {
        "length": ("the length of x", "len(x)"),
        "count_letter": ("how often {p} is in x", "x.count({p})"),
        "find": ("the position of the first {p} in x, or -1", "x.find({p})"),
    }),
    **_table("text", "words", {
        "split": ("the list of the words of x", "x.split()"),
        "split_at": ("the list of the parts of x between {p} and {p}", "x.split({p})"),
    }),
    **_table("text", "table", {
        "count_letters": ("a dict from each character of x to how often it is there", "{c: x.count(c) for c in x}"),
    }),
    **_table("numbers", "numbers", {
        "above": ("the numbers of x above {a}", "[i for i in x if i > {a}]"),
        "multiples_of": ("the numbers of x that {m} divides", "[i for i in x if i % {m} == 0]"),
        "each_plus": ("each number of x plus {a}", "[i + {a} for i in x]"),
        "sorted_numbers": ("x in order", "sorted(x)"),
        "sorted_down": ("x from the largest to the smallest", "sorted(x, reverse=True)"),
        "reverse_numbers": ("x in reverse", "x[::-1]"),
        "first_numbers": ("the first {n} of x", "x[:{n}]"),
        "distinct": ("x with only the first of equal numbers", "list(dict.fromkeys(x))"),
        "append": ("x and then {a}", "x + [{a}]"),
        "running": ("the running sums of x", "[sum(x[:i + 1]) for i in range(len(x))]"),
        "steps": ("each number of x but the first, minus the one before", "[j - i for i, j in zip(x, x[1:])]"),
    }),
    **_table("numbers", "number", {
        "sum": ("the sum of x", "sum(x)"),
        "num": ("how many numbers x has", "len(x)"),
        "largest": ("the largest number of x, or {a} without any", "max(x, default={a})"),
        "smallest": ("the smallest number of x, or {a} without any", "min(x, default={a})"),
        "sum_above": ("the sum of the numbers of x above {a}", "sum(i for i in x if i > {a})"),
        "num_above": ("how many numbers of x are above {a}", "sum(i > {a} for i in x)"),
    }),
    **_table("words", "words", {
        "longer": ("the words of x with more than {n} letters", "[w for w in x if len(w) > {n}]"),
        "with_letter": ("the words of x that have {p} in them", "[w for w in x if {p} in w]"),
        "each_before": ("{w} before each word of x", "[{w} + i for i in x]"),
        "each_backwards": ("each word of x backwards", "[w[::-1] for w in x]"),
        "sorted_words": ("x in order", "sorted(x)"),
        "by_length": ("x from the shortest to the longest word", "sorted(x, key=len)"),
        "add_word": ("x and then {w}", "x + [{w}]"),
    }),
    **_table("words", "text", {
        "join": ("the words of x with {w} between them", "{w}.join(x)"),
        "longest": ("the longest word of x, or {w} without any", "max(x, key=len, default={w})"),
    }),
    **_table("words", "number", {
        "num_words": ("how many words x has", "len(x)"),
        "count_word": ("how often {w} is in x", "x.count({w})"),
        "num_letters": ("the number of letters of all words of x", "sum(len(w) for w in x)"),
    }),
    **_table("words", "table", {
        "lengths": ("a dict from each word of x to its length", "{w: len(w) for w in x}"),
        "count_words": ("a dict from each word of x to how often it is there", "{w: x.count(w) for w in x}"),
    }),
    **_table("table", "table", {
        "without_key": ("x without {w}", "{k: v for k, v in x.items() if k != {w}}"),
        "values_plus": ("x with each value plus {a}", "{k: v + {a} for k, v in x.items()}"),
        "values_above": ("the part of x with values above {a}", "{k: v for k, v in x.items() if v > {a}}"),
    }),
    **_table("table", "number", {"total": ("the sum of the values of x", "sum(x.values())")}),
    **_table("table", "numbers", {"values": ("the values of x in order", "sorted(x.values())")}),
    **_table("table", "words", {
        "keys": ("the keys of x in order", "sorted(x)"),
        "keys_above": ("the keys of x with values above {a}, in order", "sorted(k for k in x if x[k] > {a})"),
    }),
}  # fmt: skip
"""All operations by name."""


def _conditions(kind: Kind, rows: dict[str, tuple[str, str]]) -> dict[str, Operation]:
    return _table(kind, kind, rows)


CONDITIONS: dict[str, Operation] = {
    **_conditions("number", {
        "is_above": ("x is above {a}", "x > {a}"),
        "is_even": ("x is even", "x % 2 == 0"),
        "divides": ("{m} divides x", "x % {m} == 0"),
    }),
    **_conditions("text", {
        "is_longer": ("x has more than {m} characters", "len(x) > {m}"),
        "has_letter": ("{p} is in x", "{p} in x"),
        "ends_with": ("x ends with {p}", "x.endswith({p})"),
    }),
    **_conditions("numbers", {
        "has_more": ("x has more than {n} numbers", "len(x) > {n}"),
        "has_number": ("{a} is in x", "{a} in x"),
        "sums_above": ("the sum of x is above {a}", "sum(x) > {a}"),
    }),
    **_conditions("words", {
        "has_more_words": ("x has more than {n} words", "len(x) > {n}"),
        "has_word": ("{w} is in x", "{w} in x"),
    }),
    **_conditions("table", {
        "has_key": ("x has {w}", "{w} in x"),
        "has_more_keys": ("x has more than {n} keys", "len(x) > {n}"),
    }),
}  # fmt: skip
"""All conditions by name."""
