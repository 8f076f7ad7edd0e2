"""Environments: what agents act in. `make_environment` makes one by name."""

from .base import (
    Environment,
    Expert,
    ExpertStuck,
    HasExpert,
    HasRelabelling,
    HasScore,
    HasSnapshots,
    HasTasks,
    Observation,
    Reward,
    Score,
    Step,
)
from .multi_agent import MultiAgentEnvironment
from .reading import HasReading, Reading
from .tasks import SPLITS, TaskSet, split_of, split_tasks, task_key
from .tool_environment import ToolEnvironment, calls, says, system, user
from .toolbox import Toolbox, ToolError

__all__ = [
    "SPLITS",
    "Environment",
    "Expert",
    "ExpertStuck",
    "HasExpert",
    "HasReading",
    "HasRelabelling",
    "HasScore",
    "HasSnapshots",
    "HasTasks",
    "MultiAgentEnvironment",
    "Observation",
    "Reading",
    "Reward",
    "Score",
    "Step",
    "TaskSet",
    "ToolEnvironment",
    "ToolError",
    "Toolbox",
    "calls",
    "says",
    "split_of",
    "split_tasks",
    "system",
    "task_key",
    "user",
]
