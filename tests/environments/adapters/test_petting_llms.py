"""Environments and agents of PettingLLMs' shape: who acts when, on which prompt, for which reward."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.environments import Observation, says
from understudy.errors import ConfigError
from understudy.types import Message

from .petting_shaped import PROBLEMS
from .playing import played, said

SHAPED = "tests.environments.adapters.petting_shaped"
AGENTS = {"drafter": f"{SHAPED}:Drafter", "checker": f"{SHAPED}:Checker"}


def arguments(environment: str = "Env", **others: Any) -> dict[str, Any]:
    return {"environment": f"{SHAPED}:{environment}", "agents": AGENTS, "tasks": PROBLEMS} | others


def solves(observation: Observation) -> Message:
    (number,) = re.findall(r"(\d+) \* 3", observation.messages[-1].text())
    return says(f" {3 * int(number)} ")


def test_agents_act_in_turn_on_the_prompts_that_they_write_from_the_shared_state() -> None:
    episode = played("petting_llms", arguments(), solves, num=1)[0]
    problem, answer = episode.task["problem"], episode.task["answer"]
    assert episode.error is None
    assert said(episode, 0) == [("user", f"Turn 0: draft {problem}."), ("assistant", f" {answer} ")]
    assert said(episode, 1)[:2] == [("system", "You check."), ("user", f"{problem} = ['{answer}']?")]
    assert [t.reward for t in episode.trajectories] == [0.1, 1.0]
    assert [t.success for t in episode.trajectories] == [False, True]
    assert (episode.success, episode.stop_reason) == (True, "done"), "the environment says whether it succeeded"


def test_an_episode_without_an_end_takes_all_turns_and_one_may_sit_out() -> None:
    episode = played("petting_llms", arguments(), lambda _: says("?"), num=1)[0]
    drafter, checker = (trajectory.turns for trajectory in episode.trajectories)
    assert (len(drafter), len(checker)) == (2, 3)
    assert all(turn.parent is None for turn in (*drafter, *checker)), "each prompt is written anew"
    assert [turn.reward for turn in drafter] == [pytest.approx(0.1), pytest.approx(0.2)]
    assert (episode.success, episode.stop_reason) == (False, "max_turns")


def test_turns_that_run_out_cut_an_episode_short_and_the_task_alone_numbers_the_environment() -> None:
    environment = registry.create("environments", "petting_llms", arguments("DrawingEnv", tasks=None, max_turns=1))
    for seed in (1, 2):
        step = asyncio.run(environment.reset({"seed": 7}, seed=seed))
        assert environment._play.environment.env_idx == 7
        for _ in range(2):
            step = asyncio.run(environment.step(dict.fromkeys(step.observations, says("?"))))
        assert (step.terminated, step.truncated) == (False, True)


def test_the_turn_order_may_be_another() -> None:
    episode = played("petting_llms", arguments(turn_order=["checker", "drafter"], max_turns=1), solves, num=1)[0]
    assert said(episode, 1)[1][1].endswith("= []?")
    assert len(episode.trajectories[0].turns) == 1


def test_tasks_are_values_of_the_state_or_problems_of_a_batch_or_drawn(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    batch = arguments("EnvBatch", tasks=list(range(30)), config={"env": {"benchmark": "threes"}})
    drawing = arguments("DrawingEnv", tasks=None)
    for given in (arguments(tasks=str(file)), batch, drawing):
        episodes = played("petting_llms", given, solves)
        assert {(e.error, e.success) for e in episodes} == {(None, True)}
        assert len({said(e)[0] for e in episodes}) > 3
        assert [said(e) for e in episodes] == [said(e) for e in played("petting_llms", given, solves)]
    environment = registry.create("environments", "petting_llms", batch)
    assert sorted([*environment.tasks("train"), *environment.tasks("validation"), *environment.tasks("test")]) == list(
        range(30)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": [{"problem": f"{n} * 3", "solution": "0"} for n in range(9)]}, "the state State has no 'solution'"),
        ({"agents": {"artist": f"{SHAPED}:Artist"}}, "agent 'artist' shows an image, and prompts are text here"),
    ],
)
def test_what_does_not_fit_is_a_fault_of_the_environment(given: dict[str, Any], said: str) -> None:
    (episode,) = played("petting_llms", arguments(**given), num=1)
    assert said in (episode.error or "")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"turn_order": ["checker", "draftr"]}, "there is no agent 'draftr'. Did you mean 'drafter'"),
        ({"turn_order": ["checker"]}, "agent 'drafter' never acts"),
        ({"agents": {"a": "Drafter"}}, r"agents\.a is 'Drafter'; write package.module:Class"),
        ({"tasks": "nowhere.jsonl"}, "tasks: nowhere.jsonl cannot be read"),
        ({"tasks": []}, "is no list of tasks"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        registry.create("environments", "petting_llms", arguments(**given))
