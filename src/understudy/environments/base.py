"""What an environment is: something that is reset, is stepped with the agents' messages, and says what happens.

The protocol is asynchronous and holds one agent or many, turn-based or simultaneous. A `Step` names the agents that act
next by giving them an observation. What an environment may offer besides (tasks, an expert, a score, snapshots,
relabelling) is a protocol of its own, asked for with ``isinstance``.

Invariants that everything above relies on:

- A fault of an environment or its judge is an exception or `Step.error`. It is never reported as the agent's failure.
- Success stands apart from reward, and what is unknown is None or absent. Nobody infers one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from understudy.errors import PolicyError
from understudy.types import JSON, Episode, Message, Tool

Mode = Literal["append", "replace"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What one agent newly observes.

    Args:
        messages: what is new; with mode ``replace``, the whole prompt.
        mode: ``append`` extends the agent's context; ``replace`` starts afresh, for agents that rebuild their prompt.
        tools: the tools from now on; None leaves them as they are.
        legal_actions: texts of the actions that are allowed now, where they can be listed.
        info: anything else; recorded, never shown to the agent.
    """

    messages: tuple[Message, ...] = ()
    mode: Mode = "append"
    tools: tuple[Tool, ...] | None = None
    legal_actions: tuple[str, ...] | None = None
    info: dict[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward of one agent.

    `turn` is for a reward that arrives late: which of the agent's actions it is for, counted from 0. None means the
    latest action.
    """

    value: float
    components: dict[str, float] = field(default_factory=dict)
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in reaction to the agents' actions, or at the start.

    Args:
        observations: one for each agent that acts next; at the end, what agents still see.
        rewards: one or several for each agent that gets any.
        terminated: the task has come to its end.
        truncated: the episode was cut short, by a limit of the environment.
        success: for each agent whether it would count as successful if the episode ended now; absent where unknown.
        stop_reason: why it ended, in one word or a few.
        error: a fault of the environment or of its judge. The episode ends, and nobody has failed.
    """

    observations: Mapping[str, Observation] = field(default_factory=dict)
    rewards: Mapping[str, Reward | Sequence[Reward]] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    success: Mapping[str, bool | None] | None = None
    stop_reason: str | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """True when nobody acts any more."""
        return self.terminated or self.truncated or self.error is not None


class Environment(Protocol):
    """Something that agents act in. One object plays one episode at a time, and may be reset for the next."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all agents, known before `reset`."""
        ...

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode. `task` None draws one from the seed. Equal task and seed give an equal episode."""
        ...

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take one action of each agent that was named by the last step."""
        ...

    async def close(self) -> None:
        """Let go of what the environment holds."""
        ...


Expert = Callable[[Observation], Message]
"""Decides for one agent. Bound to an environment, it may read that environment's state."""


class ExpertStuck(PolicyError):
    """Raised by an expert in a state from which it knows no way on: others have led it there."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a judge says of a whole episode. None leaves what the steps said."""

    reward: float | None = None
    success: bool | None = None
    annotations: dict[str, JSON] = field(default_factory=dict)


@runtime_checkable
class HasTasks(Protocol):
    """Has task sets that are sized, seeded and split into train, validation and test without overlap."""

    def tasks(self, split: str) -> Sequence[JSON]:
        """Return the tasks of a split, each of them JSON that `reset` takes."""
        ...


@runtime_checkable
class HasExpert(Protocol):
    """Knows how its tasks are solved."""

    def expert(self, agent: str) -> Expert:
        """Return what decides for this agent.

        It plans from the present state, whoever has led there, because learners are taught with what it would do in
        their place. Where it knows no way on it raises `ExpertStuck`.
        """
        ...


@runtime_checkable
class HasScore(Protocol):
    """Judges whole episodes."""

    async def score(self, episode: Episode) -> Score:
        """Judge a finished episode. An exception is the judge's fault and never the agent's."""
        ...


@runtime_checkable
class HasSnapshots(Protocol):
    """Can go back to a state that it was in."""

    def snapshot(self) -> Any:
        """Return the state; it does not change when the episode goes on."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Go back to the state of a snapshot, in this or another object of the same class and arguments."""
        ...


@runtime_checkable
class HasRelabelling(Protocol):
    """Can say which other tasks an episode would have solved."""

    def relabel(self, episode: Episode) -> list[Episode]:
        """Return the episode as successful plays of other tasks; empty where there are none."""
        ...
