"""Environments that are written for MRLM: ``reset() -> Observation`` and ``step(Message) -> (Observation, Reward)``.

Nothing of MRLM is imported: what has these methods and attributes is one. An observation's messages are the whole
conversation so far, the last action and the answer to it, or the answer alone; what the agent has seen already is left
out. Several that begin anew, with a system message or with what the conversation began with, replace the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.environments.base import Observation, Reward, Step
from understudy.environments.tool_environment import AGENT
from understudy.errors import EnvironmentFault
from understudy.types import JSON, Message

from .foreign import ForeignEnvironment, in_thread, load_class, no_episode, seeded, to_json

_ENVIRONMENT = "environment"


@dataclass
class _Action:
    """What stands for MRLM's message where its own class is not known."""

    role: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


class MrlmEnvironment(ForeignEnvironment):
    """One agent in an environment of MRLM's shape.

    Args:
        environment: its class, ``package.module:Class`` or ``path/to/file.py:Class``.
        arguments: keyword arguments of the class.
        success_from: the key of an observation's or a reward's ``info`` that says whether the task is solved; where it
            is absent, success is unknown.
        num_tasks, task_seed: tasks are seeds; see `ForeignEnvironment`.
        max_steps: the episode is truncated after so many actions.
    """

    agents: tuple[str, ...] = (AGENT,)

    def __init__(
        self,
        *,
        environment: str,
        arguments: Mapping[str, Any] | None = None,
        success_from: str = "success",
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(tasks=None, num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)
        self._environment: Any = load_class(environment, "environment")(**(arguments or {}))
        self._success_from = success_from
        self._seen: list[Message] | None = None
        self._message_class: Any = _Action

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode; the seed is that of the global generators, from which MRLM's environments draw."""
        number = self.seed_of(task, seed)
        given = await in_thread(seeded, number, self._environment.reset)
        self._seen, self._num_steps = [], 0
        self._message_class = type(given.messages[0]) if given.messages else _Action
        return self._step(given, None)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agent's action."""
        if self._seen is None:
            raise no_episode()
        self._seen.append(actions[AGENT])
        self._count_step()
        action = self._message_class(role="assistant", content=actions[AGENT].text())
        result = await in_thread(self._environment.step, action)
        if not isinstance(result, tuple) or len(result) != 2:
            raise EnvironmentFault(f"step returned {type(result).__name__}, and not an observation and a reward")
        return self._step(*result)

    async def close(self) -> None:
        """Close the environment."""
        self._seen = None
        if hasattr(self._environment, "close"):
            await in_thread(self._environment.close)

    def _step(self, given: Any, reward: Any) -> Step:
        assert self._seen is not None
        is_truncated = self._is_cut(bool(given.done))
        info = {key: to_json(getattr(given, key, None)) for key in ("state", "info") if getattr(given, key, None)}
        observation = _observation([_message(one) for one in given.messages], self._seen, info)
        self._seen = [*(self._seen if observation.mode == "append" else ()), *observation.messages]
        told = (getattr(reward, "info", None) or {}) | (getattr(given, "info", None) or {})
        success = told.get(self._success_from)
        rewards = {} if reward is None else {AGENT: Reward(float(reward.value), dict(reward.components or {}))}
        is_over = bool(given.done) or is_truncated
        if is_over:
            self._seen = None
        return Step(
            observations={} if is_over and not observation.messages else {AGENT: observation},
            rewards=rewards,
            terminated=bool(given.done),
            truncated=is_truncated,
            success={AGENT: None if success is None else bool(success)},
            stop_reason="max_steps" if is_truncated else "done" if given.done else None,
        )


def _observation(messages: Sequence[Message], seen: Sequence[Message], info: dict[str, JSON]) -> Observation:
    """Return what is new of an observation's messages."""
    if not seen:
        return Observation(tuple(messages), info=info)
    for known in (seen, seen[-1:]):
        if len(known) <= len(messages) and all(map(_repeats, messages, known)):
            return Observation(tuple(map(_answer, messages[len(known) :])), info=info)
    if len(messages) > 1 and (messages[0].role == "system" or _repeats(messages[0], seen[0])):
        return Observation(tuple(messages), mode="replace", info=info)
    return Observation(tuple(map(_answer, messages)), info=info)


def _repeats(message: Message, earlier: Message) -> bool:
    is_said = (message.role == "assistant") == (earlier.role == "assistant")
    return is_said and message.text() == earlier.text()


def _answer(message: Message) -> Message:
    """Return what joins a conversation: many of MRLM's answer as ``system``, which chat templates refuse there."""
    return Message("user", message.text(), name=_ENVIRONMENT) if message.role == "system" else message


def _message(given: Any) -> Message:
    """Return MRLM's message as ours; chat templates do not know the role ``environment``."""
    role = str(getattr(given.role, "value", given.role))
    if role == _ENVIRONMENT:
        return Message("user", str(given.content), name=_ENVIRONMENT)
    return Message(role, str(given.content))
