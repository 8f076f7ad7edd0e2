"""What tests of adapters share: an adapter is made by its name and played as a collection plays it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments import Observation
from understudy.policies import Policy
from understudy.policies.random_policy import RandomPolicy
from understudy.policies.scripted import ScriptedPolicy
from understudy.types import Episode, Message

Decide = Callable[[Observation], Message]


def played(name: str, arguments: Mapping[str, Any], decide: Decide | None = None, num: int = 8) -> list[Episode]:
    """Return episodes of the first tasks, in their order; without `decide` chance plays."""

    def make() -> Any:
        return registry.create("environments", name, arguments)

    environment = make()
    tasks = environment.tasks("train")
    plays = [Play(id=f"{n}", environment=name, task=tasks[n], seed=n, split="train") for n in range(num)]
    policy: Policy = RandomPolicy() if decide is None else ScriptedPolicy(decide)
    episodes: list[Episode] = []
    policies = dict.fromkeys(environment.agents, policy)
    asyncio.run(play_all(plays, make, policies, episodes.append, concurrency=3))
    return sorted(episodes, key=lambda episode: int(episode.id))


def said(episode: Episode, agent: int = 0) -> list[tuple[str, str]]:
    """Return role and text of all messages of an agent."""
    return [(message.role, message.text()) for message in episode.trajectories[agent].messages()]
