"""The mix: several environments as one, whose tasks come in turn.

A task says which of the environments it is of, and everything else is passed on to that one. What an environment may
offer besides, a mix offers as far as its environments do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from understudy import registry
from understudy.config import Component, ConfigModel, config_from_dict
from understudy.environments.base import (
    Environment,
    Expert,
    HasExpert,
    HasRelabelling,
    HasScore,
    HasSnapshots,
    HasTasks,
    Observation,
    Score,
    Step,
)
from understudy.environments.frame import NO_EPISODE
from understudy.environments.reading import HasReading, Reading
from understudy.errors import ConfigError, EnvironmentFault
from understudy.types import JSON, Episode, Message

from .tasks import ENVIRONMENT, TASK, MixedTasks


class MixMember(Component):
    """One environment of a mix."""

    ratio: float | None = Field(None, gt=0)
    """Its share of the tasks, relative to the others' ratios. Give it to all or to none; without, all shares are
    equal."""


class MixConfig(ConfigModel):
    """Several environments as one."""

    environments: dict[str, MixMember]
    """The environments by names of your own, under which their episodes are recorded. One that takes neither arguments
    nor a ratio may be given by its name alone: `{shop: tools, maze: grid}`."""

    temperature: float | None = Field(None, ge=1)
    """In place of ratios: shares in proportion to num_tasks ** (1 / temperature), where num_tasks is the size of the
    environment's own task set (temperature-scaled mixing, arXiv:1910.10683, section 3.5.2). 1 is in proportion to the
    sizes; the higher, the more equal."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if not self.environments:
            raise ValueError("environments is empty; name one at least")
        without = [name for name, member in self.environments.items() if member.ratio is None]
        if without and len(without) < len(self.environments):
            raise ValueError(f"environments.{without[0]} has no ratio while others do; give it to all or to none")
        if self.temperature is not None and not without:
            raise ValueError("give either ratios or temperature, not both")
        return self


class Mix:
    """Several environments as one.

    With a temperature T an environment's share is in proportion to num_tasks ** (1 / T): temperature-scaled mixing
    (Raffel et al. 2020, arXiv:1910.10683, section 3.5.2), there with a limit to the sizes, which ``num_tasks`` of an
    environment sets here.

    It has an expert, snapshots and readings where all environments have them; scores and relabels where one does, and
    leaves the episodes of the others as they are.

    Args:
        environments: name -> an environment's name, or ``{name: …, arguments: {…}, ratio: …}``.
        temperature: shares by the number of tasks, in place of ratios; 1 or more.

    Raises:
        ConfigError: an environment cannot be made, has no tasks, or has other agents than the rest.
    """

    def __init__(
        self, environments: Mapping[str, str | Mapping[str, Any]], *, temperature: float | None = None
    ) -> None:
        self._config = _checked(environments, temperature)
        self._members = {name: _made(name, member) for name, member in self._config.environments.items()}
        self.agents = _common_agents(self._members)
        self._playing: str | None = None
        self._task_sets: dict[str, MixedTasks] = {}
        # These are asked for with isinstance, so a mix has them only where its environments do.
        members = self._members.values()
        if all(isinstance(member, HasSnapshots) for member in members):
            self.snapshot, self.restore = self._snapshot, self._restore
        if all(isinstance(member, HasReading) for member in members):
            self.read = self._read
        if any(isinstance(member, HasScore) for member in members):
            self.score = self._score
        if any(isinstance(member, HasRelabelling) for member in members):
            self.relabel = self._relabel

    def tasks(self, split: str) -> MixedTasks:
        """Return the tasks of a split: those of all environments, in turn."""
        if split not in self._task_sets:
            own = {name: _tasks(member, split) for name, member in self._members.items()}
            self._task_sets[split] = MixedTasks(own, self._shares(split))
        return self._task_sets[split]

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode of `task`, or of one that is drawn from the seed: by the shares, then by its environment.

        Raises:
            EnvironmentFault: it is no task of this mix.
        """
        name, own = self._read_task({ENVIRONMENT: self._draw(seed), TASK: None} if task is None else task)
        self._playing = name
        return await self._members[name].reset(own, seed=seed)

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take one action of each agent that was named by the last step."""
        return await self._members[self._under_way].step(actions)

    async def close(self) -> None:
        """Close all environments, whichever of them fails at that."""
        self._playing = None
        closed = await asyncio.gather(*(member.close() for member in self._members.values()), return_exceptions=True)
        for found in closed:
            if isinstance(found, BaseException):
                raise found

    def expert(self, agent: str) -> Expert:
        """Return what decides for this agent: the expert of the environment that is being played.

        Raises:
            ConfigError: one of the environments has none.
        """
        experts: dict[str, Expert] = {}
        for name, member in self._members.items():
            if not isinstance(member, HasExpert):
                raise ConfigError(f"environments.{name}: {type(member).__name__} has no expert; use another policy")
            experts[name] = member.expert(agent)

        def decide(observation: Observation) -> Message:
            return experts[self._under_way](observation)

        return decide

    def _snapshot(self) -> Any:
        """Return which environment is being played, and its state."""
        member = self._members[self._playing] if self._playing is not None else None
        return self._playing, member.snapshot() if isinstance(member, HasSnapshots) else None

    def _restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self._playing, state = snapshot
        member = self._members[self._playing] if self._playing is not None else None
        if isinstance(member, HasSnapshots):
            member.restore(state)

    def _read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Return how an episode of a task stands, as its environment reads it."""
        name, own = self._read_task(task)
        member = self._members[name]
        return member.read(own, messages) if isinstance(member, HasReading) else Reading()

    async def _score(self, episode: Episode) -> Score:
        """Let an episode's environment judge it; where that judges none, what the steps said stands."""
        name, own = self._read_task(episode.task)
        member = self._members[name]
        return await member.score(replace(episode, task=own)) if isinstance(member, HasScore) else Score()

    def _relabel(self, episode: Episode) -> list[Episode]:
        """Return an episode as plays of other tasks of its environment; none where that cannot say."""
        name, own = self._read_task(episode.task)
        member = self._members[name]
        if not isinstance(member, HasRelabelling):
            return []
        found = member.relabel(replace(episode, task=own))
        return [replace(one, task={ENVIRONMENT: name, TASK: one.task}) for one in found]

    @property
    def _under_way(self) -> str:
        if self._playing is None:
            raise EnvironmentFault(NO_EPISODE)
        return self._playing

    def _read_task(self, task: JSON) -> tuple[str, JSON]:
        """Return which environment a task is of, and the task as that one knows it; None is of the one being played."""
        if task is None:
            return self._under_way, None
        try:
            name, own = task[ENVIRONMENT], task[TASK]
            if name in self._members:
                return name, own
            reason = f"its environments are {', '.join(self._members)}"
        except (KeyError, TypeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"this is no task of Mix ({reason}): {task!r:.200}")

    def _draw(self, seed: int | None) -> str:
        shares = self._shares("train")
        rng = random.Random(None if seed is None else f"{seed}/environment")
        return rng.choices(sorted(shares), [shares[name] for name in sorted(shares)])[0]

    def _shares(self, split: str) -> dict[str, float]:
        """Return the share of each environment; they need not sum to 1."""
        temperature = self._config.temperature
        if temperature is None:
            return {name: member.ratio or 1.0 for name, member in self._config.environments.items()}
        return {name: float(len(_tasks(one, split)) ** (1 / temperature)) for name, one in self._members.items()}


def environment_of(environment: Environment, task: JSON, name: str) -> str:
    """Return the name under which an episode of a task is recorded: the environment's, or in a mix the name within it.

    A dream of a mix plays in none of its environments, and keeps its own name.
    """
    return str(task[ENVIRONMENT]) if isinstance(environment, Mix) else name


def _checked(environments: Any, temperature: float | None) -> MixConfig:
    """Return the arguments of a mix, checked.

    Raises:
        ConfigError: names each key that is wrong.
    """
    if isinstance(environments, Mapping):
        environments = {name: {"name": one} if isinstance(one, str) else one for name, one in environments.items()}
    return config_from_dict(MixConfig, {"environments": environments, "temperature": temperature}, source="mix")


def _made(name: str, member: MixMember) -> Environment:
    """Make one environment of a mix.

    Raises:
        ConfigError: it cannot be made, or has no tasks.
    """
    try:
        made: Environment = registry.create("environments", member.name, member.arguments)
    except ConfigError as error:
        raise ConfigError(f"environments.{name}: {error}") from error
    if not isinstance(made, HasTasks):
        raise ConfigError(f"environments.{name}: {member.name} has no tasks, and a mix is made of tasks; leave it out")
    return made


def _common_agents(members: Mapping[str, Environment]) -> tuple[str, ...]:
    """Return the agents that all environments have.

    Raises:
        ConfigError: one has others.
    """
    (first, model), *others = members.items()
    for name, member in others:
        if set(member.agents) != set(model.agents):
            raise ConfigError(
                f"environments.{name}: its agents are {', '.join(member.agents)}, and those of {first} are "
                f"{', '.join(model.agents)}; a mix is of environments with the same agents"
            )
    return model.agents


def _tasks(member: Environment, split: str) -> Sequence[JSON]:
    assert isinstance(member, HasTasks)
    return member.tasks(split)
