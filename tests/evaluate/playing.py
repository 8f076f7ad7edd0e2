"""What tests of evaluating share: a policy of a chosen skill, and evaluations with little around them."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from rich.console import Console

from understudy.config import config_from_dict
from understudy.environments import task_key
from understudy.evaluate import EvaluateConfig, EvaluateResult, evaluate
from understudy.policies import Action, Context, EpisodeStart, Policy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import JSON, Message


class Skilled(Policy):
    """Solves a share of the tasks as the expert does, and gives up on the others.

    Args:
        skill: share of the tasks; those that a lesser skill solves are among those that a greater one solves.
        fault: a share of the tasks, others than those, whose plays a fault ends.
    """

    name = "skilled"

    def __init__(self, skill: float, fault: float = 0.0) -> None:
        self.skill = skill
        self.fault = fault

    def identity(self) -> JSON:
        return {"name": self.name, "skill": self.skill}

    def for_episode(self, start: EpisodeStart) -> Policy:
        drawn = random.Random(task_key(start.task)).random()
        if drawn < self.skill:
            return ExpertPolicy().for_episode(start)
        return _Quitter(is_faulty=drawn >= 1 - self.fault)

    async def act(self, context: Context) -> Action:
        raise AssertionError


class _Quitter(Policy):
    name = "skilled"

    def __init__(self, *, is_faulty: bool) -> None:
        self.is_faulty = is_faulty

    async def act(self, context: Context) -> Action:
        if self.is_faulty:
            raise OSError("the line went dead")
        return Action(Message("assistant", "I give up <script>alert('x')</script>."))


def skilled(skill: float, **arguments: Any) -> dict[str, Any]:
    """Return the config of a policy of some skill."""
    return {"name": f"{__name__}:Skilled", "arguments": {"skill": skill, **arguments}}


def config(folder: Path, **fields: Any) -> EvaluateConfig:
    """Return the config of a small evaluation."""
    base = {"environment": {"name": "math"}, "policy": skilled(0.8), "num_tasks": 40, "output_dir": str(folder)}
    return config_from_dict(EvaluateConfig, base | fields)


def run(folder: Path, **fields: Any) -> EvaluateResult:
    """Evaluate quietly."""
    return evaluate(config(folder, **fields), console=Console(file=io.StringIO()))
