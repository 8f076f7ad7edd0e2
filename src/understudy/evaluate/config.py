"""The config of an evaluation: what is played, what it is held against, and whose loss is measured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from understudy.batching import LengthPolicy
from understudy.config import Component, ConfigModel
from understudy.train.config import ObjectiveSection, RenderingSection
from understudy.train.data_config import Paths


class MeasuredRows(ConfigModel):
    """Rows that a model was not trained on, and how it is measured on them."""

    data_path: Paths = Field(validation_alias="path")
    """File, folder or glob of rows, or a list of these."""

    format: str = "auto"
    """Format of the rows; see `data.format` of training."""

    model: str | None = None
    """Model folder, adapter folder, folder of a run, or hub name; by default those that policies local play, each on
    what its agents did. Where the baseline has policies local, their models are measured on the same rows."""

    max_samples: int | None = Field(None, ge=1)
    """Read only this many episodes, from the beginning; null for all."""

    max_length: int | None = Field(None, ge=2)
    """Most tokens from the beginning of a context through the last measured token; null for no limit."""

    max_length_policy: LengthPolicy = "error"
    """What is done with what is longer: `error`, `drop` or `cut_turns`; see `data.max_length_policy` of training."""

    rendering: RenderingSection = RenderingSection()
    """How messages become tokens."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the weights are held in; `auto` is what the model was saved in."""

    max_tokens_per_batch: int = Field(4096, ge=1)
    """Tokens of one forward pass; bounds memory and changes no result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""


class LossSection(MeasuredRows):
    """Held-out loss: how likely a model finds what was done in episodes that it was not trained on."""

    objective: ObjectiveSection = ObjectiveSection()
    """What is measured; the loss is the very one that training with this objective has."""


class WorldModelSection(MeasuredRows):
    """A world model on held-out episodes: its loss on what was observed after each action, and how often it predicts
    such an observation exactly, to the last token, when it writes the likeliest tokens."""

    observation_roles: tuple[str, ...] | None = None
    """Roles of the messages that are predicted, e.g. [tool]; null for all."""

    max_batch_size: int = Field(32, ge=1)
    """Most observations that are predicted together."""

    num_shown: int = Field(20, ge=0)
    """How many wrong predictions the report shows beside what was observed."""


class EvaluateConfig(ConfigModel):
    """An evaluation: episodes on held-out tasks with scores, a comparison on the same tasks, a held-out loss."""

    output_dir: str
    """Folder for the episodes, report.json and report.html. An evaluation that was interrupted there goes on."""

    environment: Component | None = None
    """What the agents act in: math, grid, tools, function_gym, or your own. Without one, only the loss is measured."""

    policy: Component | None = None
    """Who is evaluated: local, endpoint, expert, random, replay, or your own. For every agent that `policies` does not
    name."""

    policies: dict[str, Component] = Field(default_factory=dict)
    """Who acts for single agents, by the agent's name."""

    baseline: str | Component | None = None
    """What to compare with, on the same tasks and seeds: the folder of an earlier evaluation, run or collection, or a
    policy (name, arguments) that then plays in place of `policy`."""

    baseline_policies: dict[str, Component] = Field(default_factory=dict)
    """Who acts for single agents in the baseline, by the agent's name; all others act in it as they do above."""

    split: Literal["train", "validation", "test"] = "test"
    """The tasks to play."""

    num_tasks: int | None = Field(None, ge=1)
    """How many tasks are played; null for all of the split. A finished evaluation with fewer goes on when this is
    raised."""

    samples_per_task: int = Field(1, ge=1)
    """How often each task is played. Intervals count the samples of one task as alike."""

    max_turns: int | None = Field(50, ge=1)
    """An episode is truncated when an agent has acted so often; null for no limit."""

    seed: int = 0
    """Seed of the environments: task i is played with seed + i."""

    k: tuple[int, ...] | None = None
    """For which k pass@k is given: the chance that one of k samples of a task succeeds. By default 1, 2, 4, … up to
    samples_per_task."""

    confidence: float = Field(0.95, gt=0, lt=1)
    """Of all intervals."""

    concurrency: int = Field(64, ge=1)
    """How many episodes are under way at the same time."""

    episode_timeout_seconds: float | None = Field(None, gt=0)
    """An episode that takes longer ends by a fault; null for no limit."""

    stop_after_errors: int | None = Field(20, ge=1)
    """Stop when so many episodes in a row ended by a fault, because the next will too; null to go on all the same."""

    num_shown_tasks: int = Field(20, ge=0)
    """How many tasks' episodes the report shows, those with different results first."""

    loss: LossSection | None = None
    """Measure the held-out loss of a model as well."""

    world_model: WorldModelSection | None = None
    """Measure how well a model predicts what the environment answers as well."""

    @field_validator("k")
    @classmethod
    def _in_order(cls, k: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if k is not None and (not k or any(a >= b for a, b in zip((0, *k), k, strict=False))):
            raise ValueError("give whole numbers from 1 up, in rising order, such as [1, 4]")
        return k

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        has_policy = self.policy is not None or bool(self.policies)
        measured = [section for section in (self.loss, self.world_model) if section is not None]
        if self.environment is None and not measured:
            raise ValueError("give environment and policy (to play), or loss or world_model (to measure on rows)")
        if self.environment is not None and not has_policy:
            raise ValueError("give policy (for all agents), or policies (by the agents' names)")
        if self.environment is None and has_policy and any(section.model is not None for section in measured):
            raise ValueError("give environment, so that the policy has something to play")
        if self.k is not None and self.k[-1] > self.samples_per_task:
            raise ValueError(f"pass@{self.k[-1]} needs samples_per_task: {self.k[-1]} or more")
        if isinstance(self.baseline, Component) and self.environment is not None and self.policy is None:
            raise ValueError("a baseline that is a policy plays in place of policy, which is not given")
        if isinstance(self.baseline, str) and self.environment is None:
            raise ValueError("a baseline that was played before is held against what is played; give environment")
        if isinstance(self.baseline, str) and self.baseline_policies:
            raise ValueError("the baseline was played before; leave out baseline_policies, or give it a policy")
        return self

    @property
    def plays_baseline(self) -> bool:
        """Whether a baseline plays here, rather than having been played before."""
        return isinstance(self.baseline, Component) or bool(self.baseline_policies)

    @property
    def before(self) -> tuple[Component | None, dict[str, Component]]:
        """The baseline's `policy` and `policies`, where it plays here."""
        policy = self.baseline if isinstance(self.baseline, Component) else self.policy
        return policy, self.policies | self.baseline_policies

    @property
    def components(self) -> tuple[Component, ...]:
        """All that plays here: both sides, and the environment, because a dream is played by a model."""
        given = [self.policy, *self.policies.values()]
        if self.plays_baseline:
            policy, policies = self.before
            given += [policy, *policies.values()]
        return tuple(component for component in (*given, self.environment) if component is not None)

    @property
    def pass_at(self) -> tuple[int, ...]:
        """The k of pass@k."""
        if self.k is not None:
            return self.k
        powers = (2**power for power in range(self.samples_per_task.bit_length()))
        return tuple(sorted({*powers, self.samples_per_task}))
