"""The code environment: what functions mean, what the agent is told, and that only right programs are accepted."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from tests.sandbox.machine import ALL
from tests.sandbox.test_verdict import CHEATS
from understudy.environments import Step, TaskSet, calls, says
from understudy.environments.code import Code
from understudy.environments.code.drawing import (
    LEVELS,
    NUM_EXAMPLES,
    NUM_TESTS,
    draw_function,
    draw_tests,
    neighbours,
    passes,
)
from understudy.environments.code.functions import Branch, read_function
from understudy.environments.code.operations import CONDITIONS, OPERATIONS, RANGES, SHORT, WORDS, fill
from understudy.errors import ConfigError, EnvironmentFault
from understudy.sandbox import NO_ISOLATION, Isolation, Limits, Sandbox, available_isolation
from understudy.types import Message, ToolCall

ISOLATION: Isolation = "required" if available_isolation() else NO_ISOLATION

AFFINE = {"function": [{"do": "times_plus", "m": 3, "a": 4}]}
DIGITS = {"function": [{"do": "digit_sum"}, {"do": "plus", "a": 7}]}

# What each operation gives, worked out by hand: constants, argument, value.
BY_HAND: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "times_plus": ({"m": 3, "a": 4}, 5, 19),
    "times_minus": ({"m": 3, "a": 4}, 5, 11),
    "plus_times": ({"m": 3, "a": 4}, 5, 27),
    "minus_times": ({"m": 3, "a": 4}, 5, -11),
    "remainder_plus": ({"m": 3, "a": 4}, 5, 6),
    "around": ({"v": "bat", "w": "cat"}, "x y", "batx ycat"),
    "replace": ({"p": "a", "q": "e"}, "banana", "benene"),
    "repeat_then": ({"n": 3, "w": "cat"}, "ab", "abababcat"),
    "each_times_plus": ({"m": 3, "a": 4}, [1, 2], [7, 10]),
    "between": ({"a": 4, "b": 6}, [3, 4, 5, 6, 7], [4, 5, 6]),
    "get": ({"w": "cat", "a": 4}, {"dog": 1}, 4),
    "put": ({"w": "cat", "a": 4}, {"dog": 1}, {"dog": 1, "cat": 4}),
    "plus": ({"a": 4}, -5, -1),
    "minus_from": ({"a": 4}, 5, -1),
    "quotient": ({"m": 3}, -5, -2),
    "at_least": ({"a": 4}, 3, 4),
    "at_most": ({"a": 4}, 5, 4),
    "square_plus": ({"a": 4}, -5, 29),
    "digit_sum": ({}, -405, 9),
    "distance": ({"a": 4}, 1, 3),
    "to_text": ({}, -5, "-5"),
    "padded": ({"n": 4}, 12, "0012"),
    "binary": ({}, 5, "101"),
    "digits": ({}, 405, [4, 0, 5]),
    "multiples": ({"m": 5}, 15, [0, 5, 10]),
    "reverse_text": ({}, "abc", "cba"),
    "upper": ({}, "ab c", "AB C"),
    "before": ({"w": "cat"}, "x", "catx"),
    "first": ({"n": 2}, "abc", "ab"),
    "last": ({"n": 2}, "abc", "bc"),
    "drop": ({"n": 2}, "abc", "c"),
    "every": ({"n": 2}, "abcde", "ace"),
    "without_letter": ({"p": "a"}, "banana", "bnn"),
    "sorted_text": ({}, "cab", "abc"),
    "distinct_text": ({}, "banana", "ban"),
    "length": ({}, "ab c", 4),
    "count_letter": ({"p": "a"}, "banana", 3),
    "find": ({"p": "n"}, "banana", 2),
    "split": ({}, "ab  c", ["ab", "c"]),
    "split_at": ({"p": "n"}, "banana", ["ba", "a", "a"]),
    "count_letters": ({}, "aab", {"a": 2, "b": 1}),
    "above": ({"a": 4}, [4, 5, 3, 6], [5, 6]),
    "multiples_of": ({"m": 3}, [0, 1, 3, -6], [0, 3, -6]),
    "each_plus": ({"a": 4}, [1, -4], [5, 0]),
    "sorted_numbers": ({}, [3, 1, 2], [1, 2, 3]),
    "sorted_down": ({}, [3, 1, 2], [3, 2, 1]),
    "reverse_numbers": ({}, [3, 1, 2], [2, 1, 3]),
    "first_numbers": ({"n": 2}, [3, 1, 2], [3, 1]),
    "distinct": ({}, [3, 1, 3], [3, 1]),
    "append": ({"a": 4}, [3], [3, 4]),
    "running": ({}, [3, 1, 2], [3, 4, 6]),
    "steps": ({}, [3, 1, 5], [-2, 4]),
    "sum": ({}, [3, 1], 4),
    "num": ({}, [3, 1], 2),
    "largest": ({"a": 4}, [], 4),
    "smallest": ({"a": 4}, [3, 1], 1),
    "sum_above": ({"a": 4}, [4, 5, 6], 11),
    "num_above": ({"a": 4}, [4, 5, 6], 2),
    "longer": ({"n": 3}, ["cat", "bird"], ["bird"]),
    "with_letter": ({"p": "a"}, ["cat", "dog"], ["cat"]),
    "each_before": ({"w": "cat"}, ["x", "y"], ["catx", "caty"]),
    "each_backwards": ({}, ["ab", "c"], ["ba", "c"]),
    "sorted_words": ({}, ["b", "a"], ["a", "b"]),
    "by_length": ({}, ["bb", "a", "cc"], ["a", "bb", "cc"]),
    "add_word": ({"w": "cat"}, ["x"], ["x", "cat"]),
    "join": ({"w": "cat"}, ["x", "y"], "xcaty"),
    "longest": ({"w": "cat"}, ["a", "bb", "cc"], "bb"),
    "num_words": ({}, ["a", "a"], 2),
    "count_word": ({"w": "cat"}, ["cat", "cats", "cat"], 2),
    "num_letters": ({}, ["ab", "c"], 3),
    "lengths": ({}, ["ab", "c"], {"ab": 2, "c": 1}),
    "count_words": ({}, ["a", "b", "a"], {"a": 2, "b": 1}),
    "without_key": ({"w": "cat"}, {"cat": 1, "dog": 2}, {"dog": 2}),
    "values_plus": ({"a": 4}, {"cat": 1}, {"cat": 5}),
    "values_above": ({"a": 4}, {"cat": 4, "dog": 5}, {"dog": 5}),
    "total": ({}, {"cat": 4, "dog": 5}, 9),
    "values": ({}, {"cat": 5, "dog": 4}, [4, 5]),
    "keys": ({}, {"dog": 4, "cat": 5}, ["cat", "dog"]),
    "keys_above": ({"a": 4}, {"dog": 5, "cat": 6, "ant": 4}, ["cat", "dog"]),
    "is_above": ({"a": 4}, 4, False),
    "is_even": ({}, -2, True),
    "divides": ({"m": 3}, 6, True),
    "is_longer": ({"m": 3}, "abc", False),
    "has_letter": ({"p": "a"}, "cat", True),
    "ends_with": ({"p": "a"}, "cat", False),
    "has_more": ({"n": 2}, [1, 2, 3], True),
    "has_number": ({"a": 4}, [1, 4], True),
    "sums_above": ({"a": 4}, [1, 3], False),
    "has_more_words": ({"n": 2}, ["a", "b"], False),
    "has_word": ({"w": "cat"}, ["cats"], False),
    "has_key": ({"w": "cat"}, {"cat": 0}, True),
    "has_more_keys": ({"n": 2}, {"a": 0}, False),
}


@pytest.mark.parametrize("name", [*OPERATIONS, *CONDITIONS])
def test_every_operation_gives_what_was_worked_out_by_hand(name: str) -> None:
    operation = (OPERATIONS | CONDITIONS)[name]
    constants, argument, value = BY_HAND[name]
    assert operation.is_allowed(constants)
    assert eval(fill(operation.expression, constants), {"x": argument}) == value


@pytest.mark.parametrize("level", LEVELS)
def test_a_function_can_be_read_off_its_description(level: int) -> None:
    rng = random.Random(level)
    for _ in range(60):
        function = draw_function(rng, level)
        description, tests = function.description(), draw_tests(function)
        assert read_function(function.task()) == function
        assert tests == draw_tests(function)
        assert len(tests) == NUM_TESTS
        assert len({repr(test.argument) for test in tests}) == NUM_TESTS
        for step in function.steps:
            plain = (step.condition, step.then, step.otherwise) if isinstance(step, Branch) else (step,)
            assert all(repr(value) in description for part in plain for value in part.constants.values())
        assert ("\n" in function.solution()) == (level > 1)
        assert any(isinstance(step, Branch) for step in function.steps) == (level == 3)


@pytest.mark.parametrize("level", LEVELS)
def test_the_tests_fail_whatever_is_wrong_in_one_place(level: int) -> None:
    rng = random.Random(level)
    for _ in range(20):
        function = draw_function(rng, level)
        others = list(neighbours(function))
        assert len(others) >= 1
        assert not any(passes(other, draw_tests(function)) for other in others)


def test_the_easiest_level_has_tasks_enough_for_the_default_sets() -> None:
    sizes = (
        {gap: high - low + 1 for gap, (low, high) in RANGES.items()}
        | {"p": 26, "q": 25}
        | dict.fromkeys("vw", len(WORDS))
    )
    num_functions = sum(math.prod(sizes[gap] for gap in operation.gaps) for operation in SHORT.values())
    assert 0.8 * num_functions > 20_000
    tasks = TaskSet(lambda rng: draw_function(rng, 1).task(), split="test", size=200)
    assert len({str(task) for task in tasks}) == 200


def play(task: Any, *actions: Message, **arguments: Any) -> Step:
    async def run() -> Step:
        environment = Code(**{"isolation": ISOLATION} | arguments)
        step = await environment.reset(task)
        for action in actions:
            step = await environment.step({"agent": action})
        return step

    return asyncio.run(run())


def reply(step: Step) -> str:
    return step.observations["agent"].messages[-1].text()


RIGHT = "def f(x): return x * 3 + 4"


def test_a_right_program_is_accepted_and_a_wrong_one_rejected() -> None:
    for code, is_right in (
        (RIGHT, True),
        ("def f(x):\n    y = 3 * x\n    return 4 + y", True),
        ("def f(x): return x", False),
    ):
        step = play(AFFINE, calls("submit", code=code))
        assert (step.terminated, step.stop_reason, step.success) == (True, "submitted", {"agent": is_right})
        assert step.rewards["agent"].value == float(is_right)  # type: ignore[union-attr]
        assert reply(step).startswith("accepted" if is_right else "rejected: ")


def test_a_program_that_knows_only_the_examples_is_rejected() -> None:
    tests = draw_tests(read_function(AFFINE))
    known = {test.argument: test.expected for test in tests[:NUM_EXAMPLES]}
    program = f"def f(x): return {known!r}.get(x)"
    assert reply(play(AFFINE, calls("run_tests", code=program))) == "passed 2 of 2"
    assert reply(play(AFFINE, calls("submit", code=program))) == f"rejected: 2 of {NUM_TESTS} tests passed"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (RIGHT, "passed 2 of 2"),
        ("def f(x): return x * 3", "passed 0 of 2\nf({0}) is {1}, not {2}\nf({3}) is {4}, not {5}"),
        ("def f(x): return 'no'", "passed 0 of 2\nf({0}) is 'no', not {2}\nf({3}) is 'no', not {5}"),
        ("def f(x): return x / 0", "passed 0 of 2\nZeroDivisionError: division by zero (line 1)"),
        ("def f(x) return", "passed 0 of 2\nSyntaxError: expected ':' (line 1)"),
        ("", "passed 0 of 2\nit defines no function f"),
        ("while True: pass", "passed 0 of 2\nmore than 0.3 s of CPU time"),
        ("while True: print(1)", "passed 0 of 2\nmore than 64 KiB of output"),
        ("x = bytearray(10**12)", "passed 0 of 2\nMemoryError (line 1)"),
        ("def f(x): return 'y' * 9999", "passed 0 of 2\nf({0}) is 'yyyyyyyy"),
        ("def f(x): return (x * 3 + 4,)", "passed 0 of 2\nit returned a value of type tuple, which is no plain data"),
        ("def f(x): return x * 3.0 + 4", "passed 0 of 2\nf({0}) is {2}.0, not {2}\nf({3}) is {5}.0, not {5}"),
    ],
)
def test_tests_say_what_went_wrong(code: str, said: str) -> None:
    values = [
        v for test in draw_tests(read_function(AFFINE))[:2] for v in (test.argument, test.expected - 4, test.expected)
    ]
    step = play(AFFINE, calls("run_tests", code=code), cpu_seconds=0.3)
    assert not step.is_over
    assert reply(step).startswith(said.format(*values))
    assert len(reply(step)) < 500


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_is_accepted_and_none_is_a_fault(cheat: str) -> None:
    step = play(DIGITS, calls("run_tests", code=CHEATS[cheat]), calls("submit", code=CHEATS[cheat]), cpu_seconds=0.3)
    assert (step.success, step.error) == ({"agent": False}, None)


SPY = """
import gc, os, sys
def f(x):
    todo, frame = gc.get_objects(), sys._getframe()
    while frame:
        todo += frame.f_locals.values()
        frame = frame.f_back
    for _ in range(5):
        print(*{thing for thing in todo if type(thing) is str and len(thing) < 99}, sep="\\n")
        todo = [inner for outer in todo if type(outer) in (dict, list, tuple) for inner in gc.get_referents(outer)]
    os._exit(0)
"""


@pytest.mark.parametrize("isolation", ALL)
def test_the_expected_values_are_nowhere_in_the_programs_memory(isolation: Isolation) -> None:
    """The arguments are found by the same search, so it works; the values to be found with them are not."""
    tests = draw_tests(read_function({"function": [{"do": "around", "v": "violin", "w": "wheel"}]}))
    sandbox = Sandbox(Limits(cpu_seconds=5, output_kib=4096), isolation=isolation)
    found = asyncio.run(sandbox.call(SPY, "f", [[test.argument] for test in tests])).output.split("\n")
    assert {test.argument for test in tests} <= set(found)
    assert not {test.expected for test in tests} & set(found)


def test_a_task_is_data_and_cannot_smuggle_python_in() -> None:
    for function in (
        [{"do": "plus", "a": "__import__('os').abort()"}],
        [{"do": "plus", "a": 4.0}],
        [{"do": "plus", "a": True}],
        [{"do": "plus", "a": 1000}],
        [{"do": "plus"}],
        [{"do": "plus", "a": 4, "b": 5}],
        [{"do": "between", "a": 6, "b": 4}],
        [{"do": "replace", "p": "a", "q": "a"}],
        [{"do": "before", "w": "'+x+'"}],
        [{"do": "is_even"}],
        [{"do": "plus", "a": 4}, {"do": "upper"}],
        [{"if": {"do": "is_even"}, "then": {"do": "plus", "a": 4}, "else": {"do": "to_text"}}],
        [],
    ):
        with pytest.raises(EnvironmentFault, match="no task of Code"):
            play({"function": function})


def test_text_is_answered_and_several_calls_are_run_in_order() -> None:
    assert reply(play(AFFINE, says("def f(x): ..."))) == "Please call run_tests or submit."
    wrong, right = (ToolCall("run_tests", {"code": code}, id) for code, id in (("1/0", "a"), (RIGHT, "b")))
    step = play(
        AFFINE, Message("assistant", None, tool_calls=(wrong, right, ToolCall("submit", {"code": RIGHT}, "c"), wrong))
    )
    assert [message.text().split("\n")[0] for message in step.observations["agent"].messages] == [
        *("passed 0 of 2", "passed 2 of 2", "accepted", "Error: the episode is over")
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_the_expert_makes_the_share_of_mistakes_that_it_is_told_to_and_mends_them(level: int) -> None:
    async def first_replies() -> list[str]:
        environment = Code(level=level, expert_mistakes=0.5, isolation=ISOLATION)
        expert, replies = environment.expert("agent"), []
        for task in environment.tasks("train")[:40]:
            step = await environment.reset(task)
            step = await environment.step({"agent": expert(step.observations["agent"])})
            replies.append(reply(step).split("\n")[0])
            while not step.is_over:
                step = await environment.step({"agent": expert(step.observations["agent"])})
            assert step.success == {"agent": True}
        return replies

    replies = asyncio.run(first_replies())
    assert 8 <= sum(said != "passed 2 of 2" for said in replies) <= 32


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"level": 4}, {"expert_mistakes": 2}, {"cpu_seconds": 0}, {"memory_mib": 1}, {"isolation": "none"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Code(**wrong)  # type: ignore[arg-type]
