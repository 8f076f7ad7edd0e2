"""The function gym: gymnasium's five-tuples, and an expert that only knows what it has tried."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import numpy as np
import pytest

from understudy.environments import Step, calls, says
from understudy.environments.function_gym import FunctionGym, FunctionGymEnvironment
from understudy.environments.function_gym.functions import Family, Function, Knowledge
from understudy.errors import ConfigError

TASK = {"order": [1, 0, 2, 3], "operators": "/-*", "squared": [False, True, False, False], "test": [2, 12, 1, 5]}
"""((b / a^2) - c) * d; at the test case 12 / 4 - 1 = 2, times 5 is 10."""


def gym(max_rounds: int = 12) -> FunctionGym:
    made = FunctionGym(max_rounds=max_rounds)
    made.reset(options={"task": TASK})
    return made


def test_steps_are_gymnasiums_five_tuples() -> None:
    assert gym().step("[search] test") == ("2 12 1 5", 0.0, False, False, {"success": False, "stop_reason": None})
    _, reward, terminated, truncated, info = gym().step("[answer] 10")
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert gym(1).step("[answer] 9")[2:4] == (False, True)


@pytest.mark.parametrize(
    ("action", "feedback"),
    [
        ("[action] 1 2 3 4", "-4"),
        ("[action] 2 1 0 3", "0.75"),
        ("[action] 0 1 2 3", "It divides by zero."),
        ("[action] 2 12 1 5", "That is the test case. Try other numbers."),
        ("[action] 1 2 3", "Give four whole numbers with spaces between them."),
        ("[action] 1 2 3 four", "Give four whole numbers with spaces between them."),
        ("[search] function", "Only the test case can be searched for: test."),
        ("[answer] ten", "Give one number."),
        ("[answer] 1e999", "That is wrong."),
        ("[answer] nan", "That is wrong."),
        ("[guess] 1", "Write [action], [answer] or [search], and what goes with it."),
        ("hello", "Write [action], [answer] or [search], and what goes with it."),
    ],
)
def test_every_action_gets_its_answer(action: str, feedback: str) -> None:
    assert gym().step(action)[0] == feedback


def run(*actions: Any) -> list[Step]:
    async def play() -> list[Step]:
        environment = FunctionGymEnvironment(level=3)
        return [await environment.reset(TASK), *[await environment.step({"agent": action}) for action in actions]]

    return asyncio.run(play())


def test_the_tool_passes_choice_and_content_on() -> None:
    interact = "interact_with_env"
    steps = run(
        says("hm"),
        calls(interact, choice="search", content="test"),
        calls(interact, choice="answer", content="3"),
        calls(interact, choice="answer", content="10.0"),
    )
    texts = [step.observations["agent"].messages[-1].text() for step in steps[1:]]
    assert texts == ["Please call the tool interact_with_env.", "2 12 1 5", "That is wrong.", "That is right."]
    assert [step.rewards["agent"].value for step in steps[1:]] == [0.0, 0.0, 0.0, 1.0]
    assert (steps[-1].terminated, steps[-1].stop_reason, steps[-1].success) == (True, "answered", {"agent": True})
    parameters = steps[0].observations["agent"].tools[0].parameters
    assert parameters["properties"]["choice"]["enum"] == ["action", "answer", "search"]


@pytest.mark.parametrize("family", [Family("+-"), Family("+-*/", any_order=True, squares=True)])
def test_the_table_of_a_family_computes_what_its_functions_compute(family: Family) -> None:
    rng = random.Random(1)
    functions = list(
        itertools.product(family.orders(), itertools.product(family.operators, repeat=3), family.squared())
    )
    for inputs in ((1, 2, 3, 4), (5, 0, 2, 7)):
        values = set()
        for order, operators, squared in rng.sample(functions, min(len(functions), 300)):
            exact = Function(order, "".join(operators), squared)(inputs)
            values.add("nan" if exact is None else round(float(exact), 4) + 0.0)
        found = Knowledge(family).answers(inputs)
        finite = {value + 0.0 for value in found[np.isfinite(found)]}
        assert all(any(abs(value - other) < 2e-4 for other in finite) for value in values - {"nan"})


@pytest.mark.parametrize("largest", [20, 100, 10**9 - 1])
def test_knowledge_never_rules_out_the_truth(largest: int) -> None:
    family = Family("+-*/", any_order=True, squares=True)
    rng = random.Random(2)
    for _ in range(20):
        function = Function(
            rng.choice(family.orders()), "".join(rng.choices("+-*/", k=3)), rng.choice(family.squared())
        )
        knowledge = Knowledge(family)
        for _ in range(4):
            inputs = [rng.randint(0, largest) for _ in range(4)]
            value = function(inputs)
            knowledge.learn(inputs, None if value is None else round(float(value), 4))
        test = [rng.randint(1, 20) for _ in range(4)]
        if (right := function(test)) is not None:
            assert np.isclose(knowledge.answers(test), float(right), atol=1e-3).any()


def test_bad_settings_are_refused() -> None:
    for arguments in ({"level": 4}, {"max_rounds": 0}):
        with pytest.raises(ConfigError):
            FunctionGymEnvironment(**arguments)
