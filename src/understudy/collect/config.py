"""The config of a collection."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from understudy.config import Component, ConfigModel


class SharedStoreSection(ConfigModel):
    """A store that episodes are played into, by several collections at once."""

    path: str
    """The store's file; it is made where it is missing."""

    split: str = "train"
    """The split of the store that the episodes are added to."""

    lease_seconds: float = Field(600, ge=1)
    """How long a task stays a collection's own when that no longer says that it lives. It says so four times in that
    time."""


class CollectConfig(ConfigModel):
    """Which episodes are collected, and how."""

    environment: Component
    """What the agents act in: math, grid, tools, search, team, … (see environments.md), or your own."""

    policy: Component | None = None
    """Who acts: expert, endpoint, local, random, replay, or your own. For every agent that `policies` does not name."""

    policies: dict[str, Component] = Field(default_factory=dict)
    """Who acts for single agents, by the agent's name."""

    labeler: Component | None = None
    """Who says in every state what it would have done there: expert, or another policy. That is trained in place of
    what `policy` did, which stays as context (DAgger). Agents that `policies` names are not labelled."""

    beta: float = Field(0.0, ge=0, le=1)
    """The chance, turn by turn, that the labeler's action is the one that is taken."""

    split: Literal["train", "validation", "test"] = "train"
    """The tasks to play."""

    first_task: int = Field(0, ge=0)
    """The first task to play, counted from 0; after the last one of the split comes its first again."""

    num_episodes: int | None = Field(None, ge=1, validation_alias="sft_num_episodes")
    """How many episodes there shall be in the end; null for all tasks of the split. A finished collection with fewer
    goes on when this is raised."""

    samples_per_task: int = Field(1, ge=1)
    """How often each task is played."""

    max_turns: int | None = Field(50, ge=1)
    """An episode is truncated when an agent has acted so often; null for no limit."""

    seed: int = 0
    """Seed of the environments: task i is played with seed + i; tasks that come again go on counting."""

    output_dir: str
    """Folder for the episodes, their statistics, config and provenance. A collection that was interrupted there goes
    on."""

    output_format: Literal["jsonl", "jsonl.zst", "parquet"] = "jsonl"
    """Kind of file that the episodes are in when all are there."""

    store: SharedStoreSection | None = None
    """Play into a store, and share the tasks with all other collections of the same kind that do; each ends when all
    episodes are there."""

    concurrency: int = Field(64, ge=1)
    """How many episodes are under way at the same time."""

    episode_timeout_seconds: float | None = Field(None, gt=0)
    """An episode that takes longer ends by a fault; null for no limit."""

    stop_after_errors: int | None = Field(20, ge=1)
    """Stop when so many episodes in a row ended by a fault, because the next will too; null to go on all the same."""

    fsync: Literal["always", "interval", "never"] = "interval"
    """When finished episodes are forced onto the disk: after each, about once a second, or when the system likes. A
    killed process loses none of them; a power cut may cost what was not forced."""

    @model_validator(mode="after")
    def _has_a_policy(self) -> Self:
        if self.policy is None and not self.policies:
            raise ValueError("give policy (for all agents), or policies (by the agents' names)")
        if self.labeler is not None and self.policy is None:
            raise ValueError("labeler labels what policy does, which is not given")
        if self.beta and self.labeler is None:
            raise ValueError("beta is the chance that the labeler acts; give labeler")
        return self

    @property
    def components(self) -> tuple[Component, ...]:
        """All that plays here: who acts and who labels, and the environment, because a dream is played by a model."""
        given = (self.policy, *self.policies.values(), self.labeler, self.environment)
        return tuple(component for component in given if component is not None)


CHANGEABLE = frozenset(
    {
        *("num_episodes", "output_dir", "output_format", "concurrency", "episode_timeout_seconds"),
        *("stop_after_errors", "fsync"),
    }
)
"""Keys that may differ when a collection goes on. All others decide what an episode is."""
