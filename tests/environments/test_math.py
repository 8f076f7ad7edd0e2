"""The math environment and its calculator, held against Python's own arithmetic."""

from __future__ import annotations

import asyncio
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.environments import says
from understudy.environments.math import Math
from understudy.environments.math.calculator import evaluate, to_text
from understudy.environments.math.environment import last_number
from understudy.environments.math.problems import draw_expression, draw_story
from understudy.errors import ConfigError

expressions = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(expressions)
def test_whole_numbers_agree_with_python(expression: str) -> None:
    assert evaluate(expression) == eval(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1/3", "0.3333333333"),
        ("7 / 2", "3.5"),
        ("2**10", "1024"),
        ("-2**2", "-4"),
        ("7 % 4 + 7 // 4", "4"),
        ("0.1+0.2", "0.3"),
    ],
)
def test_results_are_written_as_people_write_them(expression: str, text: str) -> None:
    assert to_text(evaluate(expression)) == text


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1/0",
        "0**-1",
        "x+1",
        "__import__('os')",
        "1 if 1 else 2",
        "[1]",
        "9**9**9",
        "2**65",
        "1" * 501,
        "10**64*10**64*10**64*10**64",
        "'a'*9",
        "True",
        "1e999",
        "(" * 200,
        "\x00",
        "1;2",
        "a.b",
        "f(1)",
        "1j",
    ],
)
def test_everything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the texts differ)
        evaluate(expression)


@pytest.mark.parametrize("draw", [draw_expression, draw_story])
def test_the_expression_of_a_problem_has_its_answer(draw: object) -> None:
    rng = random.Random(5)
    for num_operations in (1, 2, 3, 5):
        for _ in range(50):
            problem = draw(rng, num_operations=num_operations, max_operand=20)  # type: ignore[operator]
            assert evaluate(problem.expression) == problem.answer
            if draw is draw_expression:
                assert eval(problem.expression) == problem.answer
                assert sum(problem.expression.count(sign) for sign in "+-*/") == num_operations
            else:
                assert problem.answer >= 0
                assert problem.question.count(". ") == num_operations + 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 4.", 4),
        ("1,234 it is", 1234),
        ("-3", -3),
        ("between 2 and 2.50", Fraction(5, 2)),
        ("1e3", 1000),
        ("none", None),
        ("2 and then 3,", 3),
        ("9" * 5000, None),
        ("1e9999999", 9999999),
        ("4!", 4),
    ],
)
def test_the_last_number_of_a_text_counts(text: str, number: object) -> None:
    assert last_number(text) == number


def test_a_wrong_answer_is_a_failure_and_no_error() -> None:
    async def play() -> object:
        environment = Math()
        await environment.reset(environment.tasks("train")[0])
        return await environment.step({"agent": says("It is 123456789.")})

    step = asyncio.run(play())
    assert (step.terminated, step.success, step.error) == (True, {"agent": False}, None)  # type: ignore[attr-defined]
    assert step.rewards["agent"].value == 0.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [{"kinds": ["storys"]}, {"kinds": []}, {"min_operations": 4}, {"max_operand": 1}, {"min_operations": 0}],
)
def test_bad_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError):
        Math(**arguments)
