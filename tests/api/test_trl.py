"""Our environments in TRL's GRPO: the prompts that training used, the tools, and what a rollout was worth."""

from __future__ import annotations

import asyncio
import inspect
import json
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from transformers.utils import get_json_schema

from tests.contracts.test_environments import ISOLATION
from tests.training import ROOT, make_base, weather_episodes
from understudy import registry
from understudy.api.trl import TRLEnvironment, trl_environment, trl_reward, trl_rows
from understudy.collect import Play, play_episode
from understudy.environments import Step
from understudy.errors import ConfigError
from understudy.formats import write_episodes
from understudy.policies.scripted import ExpertPolicy

CASES: list[tuple[str, dict[str, Any]]] = [
    ("tools", {"level": 3}),
    ("math", {}),
    ("grid", {}),
    ("search", {"level": 1}),
    ("function_gym", {"level": 1}),
    ("user_gym", {"level": 1}),
    ("code", {"level": 1} | ISOLATION),
]


def tools_of(environment: TRLEnvironment) -> dict[str, Any]:
    """Return the tools as TRL finds them."""
    members = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    found = [getattr(environment, name) for name, _ in members if name != "reset" and not name.startswith("_")]
    return {tool.__name__: tool for tool in found}


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_tools_in_a_prompt_are_those_of_the_episodes(name: str, arguments: dict[str, Any]) -> None:
    found = [get_json_schema(tool) for tool in tools_of(trl_environment(name, arguments)()).values()]
    expected = [tool.definition for tool in registry.create("environments", name, arguments).tools]
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_what_the_expert_does_is_worth_as_much_as_in_a_collection(name: str, arguments: dict[str, Any]) -> None:
    environment_class = trl_environment(name, arguments)
    for row in trl_rows(name, arguments, num=3):
        environment = registry.create("environments", name, arguments)
        play = Play(id="x", task=json.loads(row["task"]))
        episode = asyncio.run(play_episode(environment, {"agent": ExpertPolicy()}, play))
        messages = episode.trajectories[0].messages()
        opening = [{"role": m.role, "content": m.text()} for m in episode.trajectories[0].turns[0].observation]
        assert row["prompt"] == opening
        rollout = environment_class()
        assert rollout.reset(**row) is None
        results, completion = [], []
        for message in messages[len(opening) :]:
            if message.role == "assistant":
                calls = [{"function": {"name": c.name, "arguments": c.parsed_arguments()}} for c in message.tool_calls]
                completion.append({"role": "assistant", "content": message.text(), "tool_calls": calls})
                results += [tools_of(rollout)[c.name](**c.parsed_arguments()) for c in message.tool_calls]
        assert [m.text() for m in messages if m.role == "tool"] == results
        assert trl_reward([completion], [rollout]) == [episode.reward] == [1.0]


def test_a_rollout_that_gives_up_is_worth_nothing_and_one_environment_serves_many() -> None:
    rows = trl_rows("math", num=2)
    rollout = trl_environment("math")()
    for row in rows:
        rollout.reset(**row)
        assert trl_reward([[{"role": "assistant", "content": "I do not know."}]], [rollout]) == [0.0]
        rollout.reset(**row)
        assert trl_reward([[{"role": "tool", "content": "7"}]], [rollout]) == [0.0], "cut off before it said anything"


def test_a_fault_of_the_environment_is_no_failure_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = trl_rows("math", num=1)
    rollout = trl_environment("math")()
    (tool,) = tools_of(rollout).values()
    for broken in (Mock(side_effect=OSError("the disk is full")), AsyncMock(return_value=Step(error="no judge"))):
        rollout.reset(**row)
        with monkeypatch.context() as patched:
            patched.setattr(rollout._environment, "step", broken)
            assert tool(expression="1") == "Error: the environment failed"
        assert trl_reward([[{"role": "assistant", "content": "1"}]], [rollout]) == [None]
    rollout.reset(**row)
    assert trl_reward([[]], [rollout]) == [0.0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: trl_environment("grid", {"interface": "text"}), "take an environment with tools"),
        (lambda: trl_environment("debate"), "debate cannot be handed to TRL"),
        (lambda: trl_rows("math", {"num_tasks": 3}, num=4), "num is 4, but the train split of math has 3 tasks"),
    ],
)
def test_what_trl_cannot_play_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call()


def test_grpo_runs_after_and_beside_supervised_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    pytest.importorskip("datasets")
    base = make_base(tmp_path / "base")
    write_episodes(tmp_path / "shown.jsonl", weather_episodes())
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    arguments = ["--model", str(base), "--environment", "math", "--num-tasks", "2", "--max-steps", "1"]
    arguments += ["--num-generations", "2", "--max-completion-length", "8", "--chat-template", str(template)]
    arguments += ["--demonstrations", str(tmp_path / "shown.jsonl"), "--output-dir", str(tmp_path / "grpo")]
    monkeypatch.setattr(sys, "argv", ["grpo.py", *arguments])
    losses: list[float] = []
    monkeypatch.setattr(
        trl.GRPOTrainer, "log", lambda self, logs, *_: losses.extend(self._metrics["train"]["sft_loss"])
    )
    runpy.run_path(str(ROOT / "examples" / "grpo.py"), run_name="__main__")
    assert losses[0] > 1
    assert (tmp_path / "grpo" / "final" / "model.safetensors").is_file()
