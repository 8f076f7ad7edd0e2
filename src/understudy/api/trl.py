"""The hand-over to RL: our environments in TRL's GRPO (https://huggingface.co/docs/trl/grpo_trainer).

TRL plays: it generates, calls the tools, and asks what a rollout was worth. So an environment is given to it as a class
whose methods are the tools (`environment_factory`), its tasks as rows of prompts, and its judgement as a reward
function, which also hands in the message that the model ended with.

Invariant: the tools that TRL puts into a prompt are those that episodes of the environment hold, in the same order, so
that RL goes on from the prompts that the model was trained on.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, get_type_hints

from understudy import registry
from understudy.environments import Environment, HasTasks, Reward, Step, ToolEnvironment
from understudy.environments.tool_environment import AGENT
from understudy.errors import ConfigError
from understudy.types import JSON, Message, ToolCall

Result = TypeVar("Result")

log = logging.getLogger("understudy.trl")


class TRLEnvironment:
    """One rollout, as TRL wants it: `reset`, and each tool as a method. `trl_environment` adds the tools.

    TRL takes every member for a tool that does not begin with an underscore, in the order of the members' names; what
    the tool is called it reads off the function.
    """

    _name: str
    _arguments: dict[str, Any]

    def __init__(self) -> None:
        self._environment: ToolEnvironment[Any] = registry.create("environments", self._name, self._arguments)
        self._reward = 0.0
        self._is_over = True
        self._fault: str | None = None

    def reset(self, task: str, **_: Any) -> None:
        """Start an episode of a row's task. The prompt has its opening already."""
        _waited_for(self._environment.reset(json.loads(task)))
        self._reward, self._is_over, self._fault = 0.0, False, None

    def _take(self, action: Message) -> str:
        """Take an action and return what is observed. A fault of the environment ends the rollout."""
        if self._is_over:
            return "Error: the episode is over"
        try:
            step = _waited_for(self._environment.step({AGENT: action}))
        except Exception as error:  # an environment is foreign code: whatever it raises is its fault
            step = Step(error=f"{type(error).__name__}: {error}")
        self._is_over, self._fault = step.is_over, step.error
        if step.error is not None:
            log.warning("%s: a rollout is left out of the step, because of %s", self._name, step.error)
            return "Error: the environment failed"
        rewards = step.rewards.get(AGENT, ())
        self._reward += sum(reward.value for reward in ([rewards] if isinstance(rewards, Reward) else rewards))
        return "\n".join(message.text() for message in step.observations[AGENT].messages) if step.observations else ""

    def _worth(self, ending: str) -> float | None:
        """Return the sum of the rewards, with the message that the model ended with; None where nobody can say."""
        if ending:
            self._take(Message("assistant", ending))
        return self._reward if self._fault is None else None


def trl_environment(name: str, arguments: Mapping[str, Any] | None = None) -> type[TRLEnvironment]:
    """Return the class of an environment for `GRPOTrainer(environment_factory=…)`.

    Args:
        name, arguments: as in `collect.environment`; an environment in which one agent acts by calling tools.

    Raises:
        ConfigError: it is another kind of environment, or cannot be made.
    """
    environment = registry.create("environments", name, arguments)
    if not isinstance(environment, ToolEnvironment) or not environment.tools:
        raise ConfigError(
            f"{name} cannot be handed to TRL: there one agent acts by calling tools, and a message without a call ends "
            "the rollout; take an environment with tools (grid: interface tool)"
        )
    members: dict[str, Any] = {"_name": name, "_arguments": dict(arguments or {})}
    for number, (tool, function) in enumerate(environment.toolbox.functions.items()):
        members[f"tool_{number:03}_{tool}"] = _method(tool, function)
    return type(f"TRL{type(environment).__name__}", (TRLEnvironment,), members)


def trl_rows(
    name: str, arguments: Mapping[str, Any] | None = None, *, split: str = "train", num: int | None = None
) -> list[dict[str, Any]]:
    """Return the tasks of a split as rows for a Hugging Face dataset: ``prompt``, and ``task`` as JSON.

    Args:
        name, arguments: as for `trl_environment`.
        num: how many; None for all.

    Raises:
        ConfigError: the environment has no tasks, or not so many.
    """
    environment: Environment = registry.create("environments", name, arguments)
    if not isinstance(environment, HasTasks):
        raise ConfigError(f"{name} has no task set to make rows of")
    tasks = environment.tasks(split)
    if num is not None and num > len(tasks):
        raise ConfigError(f"num is {num:,}, but the {split} split of {name} has {len(tasks):,} tasks")
    return _waited_for(_rows(environment, tasks[: len(tasks) if num is None else num]))


def trl_reward(completions: list[Any], environments: Sequence[TRLEnvironment], **_: Any) -> list[float | None]:
    """Return what rollouts were worth; for `GRPOTrainer(reward_funcs=trl_reward)`.

    None, which TRL leaves out of the step, where the environment failed: that is no failure of the model.
    """
    return [one._worth(_ending(completion)) for completion, one in zip(completions, environments, strict=True)]


def _waited_for(awaitable: Coroutine[Any, Any, Result]) -> Result:
    """Run something asynchronous to its end, also where a loop runs already, as in a notebook."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, awaitable).result()


async def _rows(environment: Environment, tasks: Sequence[JSON]) -> list[dict[str, Any]]:
    rows = []
    for task in tasks:
        step = await environment.reset(task)
        prompt = [{"role": m.role, "content": m.text()} for m in step.observations[AGENT].messages]
        rows.append({"prompt": prompt, "task": json.dumps(task)})
    await environment.close()
    return rows


def _method(tool: str, function: Any) -> Any:
    """Return a tool as a method, with the hints, signature and docstring that TRL makes its schema of."""

    def method(self: TRLEnvironment, **arguments: JSON) -> str:
        return self._take(Message("assistant", tool_calls=(ToolCall(tool, arguments),)))

    hints = get_type_hints(function)
    hints.pop("return", None)  # it would stand in the schema
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([own, *inspect.signature(function).parameters.values()])
    method.__name__ = method.__qualname__ = tool
    method.__doc__ = inspect.getdoc(function)
    method.__annotations__ = hints
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


def _ending(completion: Any) -> str:
    """Return the text of the message without calls that a rollout ended with; empty where it ended otherwise."""
    if isinstance(completion, str):
        return completion
    last = completion[-1] if completion else {}
    is_text = last.get("role") == "assistant" and not last.get("tool_calls")
    return str(last.get("content") or "") if is_text else ""
