"""The team: who knows what, when the job is done, and whose part was done when it is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from understudy.environments import Step, calls, says
from understudy.environments.team import Team
from understudy.environments.team.tasks import named_after
from understudy.errors import ConfigError, EnvironmentFault

MANUAL = {"pump": {"red": 17, "green": 40}, "fan": {"red": 21, "blue": 99}}
TASK = {"manual": MANUAL, "rounds": [{"pump": "red", "fan": "blue"}]}
TWICE = {"manual": MANUAL, "rounds": [{"pump": "red"}, {"pump": "green"}]}


def run(task: Any, *actions: tuple[str, Any]) -> list[Step]:
    async def play() -> list[Step]:
        environment = Team()
        steps = [await environment.reset(task)]
        for agent, action in actions:
            steps.append(await environment.step({agent: says(action) if isinstance(action, str) else action}))
        return steps

    return asyncio.run(play())


def dial(machine: str, value: int) -> tuple[str, Any]:
    return "solver", calls("set_dial", machine=machine, value=value)


REPORT, MISREPORT = ("solver", "pump red, fan blue"), ("solver", "pump red, fan red")
PLAN = ("planner", "pump 17, fan 99")


def outcome(step: Step) -> tuple[Any, ...]:
    assert step.terminated
    rewards = {agent: reward.value for agent, reward in step.rewards.items()}  # type: ignore[union-attr]
    return step.stop_reason, step.success, rewards


def test_neither_sees_what_the_other_knows() -> None:
    steps = run(TASK, REPORT)
    solver, planner = (
        " ".join(m.text() for m in step.observations[agent].messages)
        for step, agent in zip(steps, ("solver", "planner"), strict=True)
    )
    assert "17" not in solver
    assert planner.endswith("fan: red 21, blue 99\nYour partner says: pump red, fan blue")
    assert [tool.name for tool in steps[0].observations["solver"].tools or ()] == ["set_dial"]
    assert steps[1].observations["planner"].tools == ()


def test_a_job_that_is_done_is_everybodys_success() -> None:
    done = ("done", {"planner": True, "solver": True}, {"planner": 1.0, "solver": 1.0})
    assert outcome(run(TASK, REPORT, PLAN, dial("fan", 99), dial("pump", 17))[-1]) == done
    told_all = ("planner", "If the pump is red: 17, if green: 40. If the fan is red 21, else 99.")
    assert outcome(run(TASK, ("solver", "Ready!"), told_all, dial("pump", 17), dial("fan", 99))[-1]) == done


@pytest.mark.parametrize(
    ("actions", "planner", "solver"),
    [
        ((REPORT, ("planner", "pump 17, fan 21"), dial("pump", 17), dial("fan", 21)), False, True),
        ((REPORT, PLAN, dial("pump", 17), dial("fan", 98)), True, False),
        ((MISREPORT, ("planner", "pump 17, fan 21"), dial("pump", 17), dial("fan", 21)), True, False),
        ((REPORT, ("planner", "pump 17"), dial("pump", 17), dial("fan", 50)), False, False),
        ((dial("pump", 17), dial("fan", 21)), False, False),
    ],
)
def test_a_job_that_failed_is_the_failure_of_those_who_did_not_do_their_part(
    actions: Any, planner: bool, solver: bool
) -> None:
    success = {"planner": planner, "solver": solver}
    assert outcome(run(TASK, *actions)[-1]) == ("failed", success, {a: 0.5 * s for a, s in success.items()})


def test_the_next_lamps_light_up_when_a_round_is_right_and_else_it_is_over() -> None:
    first = (("solver", "pump red"), ("planner", "pump 17"))
    steps = run(TWICE, *first, dial("pump", 17), ("solver", "pump green"), ("planner", "pump 40"), dial("pump", 40))
    assert steps[3].observations["solver"].messages[-1].text() == "set. Now pump green"
    assert outcome(steps[-1])[0] == "done"
    assert outcome(run(TWICE, *first, dial("pump", 18))[-1])[:2] == ("failed", {"planner": True, "solver": False})


def test_a_dial_is_set_once_and_there_must_be_one() -> None:
    steps = run(TASK, REPORT, PLAN, dial("pump", 17), dial("pump", 18), dial("lamp", 3))
    assert [step.observations["solver"].messages[-1].text() for step in steps[4:]] == [
        "Error: the dial of the pump has been set already", "Error: there is no machine 'lamp'",
    ]  # fmt: skip


def test_what_is_said_of_a_machine_stands_between_its_name_and_the_next() -> None:
    number = r"\b\d{1,4}\b"
    for text in ("pump 17, fan 40", "Set the Pump to 17. Then set the FAN to 40!", "pump 9 fan 40, no: pump 17"):
        assert named_after(text, MANUAL, number) == {"pump": "17", "fan": "40"}
    assert named_after("17 for the pump", MANUAL, number) == {}
    assert named_after("pumps 17", MANUAL, number) == {}


def test_experts_act_by_what_they_were_told_and_not_by_what_they_could_not_know() -> None:
    async def play() -> list[str]:
        environment = Team()
        step = await environment.reset(TASK)
        planner, solver = environment.expert("planner"), environment.expert("solver")
        step = await environment.step({"solver": says("Hello.")})
        said = [planner(step.observations["planner"]).text()]
        step = await environment.step({"planner": says("pump 50")})
        said.append(str(solver(step.observations["solver"]).tool_calls[0].arguments))
        return said

    assert asyncio.run(play()) == ["What colours do the lamps have?", "{'machine': 'pump', 'value': 50}"]


def test_bad_settings_and_broken_tasks_are_refused() -> None:
    for arguments in ({"level": 4}, {"turn_order": ["solver"]}):
        with pytest.raises(ConfigError):
            Team(**arguments)
    for task in ({"manual": MANUAL, "rounds": []}, {"manual": MANUAL, "rounds": [{"pump": "blue"}]}):
        with pytest.raises(EnvironmentFault, match="no task of Team"):
            run(task)
