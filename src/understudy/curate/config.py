"""The config of a curation: which episodes are kept, and for what."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from understudy.config import Component, ConfigModel


class CurateConfig(ConfigModel):
    """Which episodes are kept. The rules are applied in the order in which they stand here."""

    path: str | tuple[str, ...] = Field(validation_alias="data_path")
    """File, folder or glob of episodes, or a list of these. Read twice, so standard input will not do."""

    format: str = "auto"
    """Format of the rows."""

    replay_path: str | tuple[str, ...] = ()
    """What earlier curations kept, such as their train.jsonl and validation.jsonl: older than `path`, and judged by the
    same rules again. For loops that go on with what they have."""

    hindsight: bool = False
    """Add failed episodes as successes at the task that they did solve, where `environment` can say which: to come to
    the place that was reached, to serve the request that was served. They are written to relabelled.jsonl too."""

    environment: Component | None = None
    """The environment of the episodes, with its arguments; `hindsight` asks it."""

    output_dir: str
    """Folder for train.jsonl, validation.jsonl where a share is held out, their statistics, and curation_stats.json:
    what each rule kept and why."""

    output_format: Literal["jsonl", "jsonl.zst", "parquet"] = "jsonl"
    """Kind of the files of episodes."""

    drop_errors: bool = True
    """Leave out episodes that a fault of the environment or the machinery ended."""

    only_success: bool = False
    """Keep what succeeded. What is not known to have succeeded is left out."""

    success_of: Literal["env", "agent"] = Field("env", validation_alias="collect_mode")
    """Whose success `only_success` asks for: the whole episode's, or each agent's own; then the trajectories of the
    agents that failed are left out."""

    min_reward_threshold: float | None = None
    """Keep episodes whose reward is at least this. An unknown reward is not."""

    min_turns: int | None = Field(None, ge=0)
    """Fewest actions of an episode."""

    max_turns: int | None = Field(None, ge=1)
    """Most actions of an episode."""

    max_characters: int | None = Field(None, ge=1)
    """Most characters of an agent's longest conversation."""

    max_tokens: int | None = Field(None, ge=1)
    """Most tokens of an agent's longest conversation: those of its messages' own text, by `model`."""

    model: str | None = None
    """Model folder or hub name whose tokenizer counts for `max_tokens`."""

    deduplicate: bool = False
    """Keep the first of episodes whose agents saw and did exactly the same."""

    best_of_n: int | None = Field(None, ge=1)
    """Keep at most so many episodes of a task: those with the highest rewards; among equals the successful, then the
    shorter, then the earlier ones."""

    max_trajectories: int | None = Field(None, ge=1)
    """Keep at most so many episodes, drawn at random."""

    replay_buffer_size: int | None = Field(None, ge=1)
    """Keep at most so many episodes, the newest: those of `path` after those of `replay_path`. Where tasks are held
    out, that share of the number is theirs."""

    agent_ratios: dict[str, float] = Field(default_factory=dict)
    """Balance the agents' trajectories: so many of one for so many of another, `{planner: 1, solver: 2}`. As many are
    kept as these ratios allow, drawn at random, and one at least of each agent that has any; 0 leaves an agent out.
    Name all agents of the data. An agent that has none left after the rules before does not hold the others down."""

    validation_split: float = Field(0.0, ge=0, lt=1)
    """Share of the tasks that is held out, one at least. All episodes of a task stay on one side. What `hindsight` adds
    of a failed episode that is kept too is left out where their tasks are on different sides."""

    augment: tuple[Component, ...] = ()
    """Add copies of what is trained on, changed by these in turn: shuffle_tools (another order of the tools),
    drop_unused_tools (fewer tools, but those that were called; `chance` for each), or your own, as
    package.module:Class. What is held out stays as it is."""

    augment_copies: int = Field(1, ge=1)
    """How many copies `augment` makes of each episode; fewer where there are not so many different ones."""

    seed: int = 0
    """Seed of what is drawn at random."""

    @model_validator(mode="after")
    def _counts_tokens_with_a_tokenizer(self) -> Self:
        if (self.max_tokens is None) != (self.model is None):
            raise ValueError("max_tokens and model go together: the model's tokenizer counts")
        if self.min_turns is not None and self.max_turns is not None and self.min_turns > self.max_turns:
            raise ValueError(f"min_turns {self.min_turns} is above max_turns {self.max_turns}")
        ratios = self.agent_ratios.values()
        if ratios and not (all(0 <= ratio < float("inf") for ratio in ratios) and any(ratios)):
            raise ValueError(f"agent_ratios {self.agent_ratios}: give numbers from 0 up, and one above 0")
        if self.hindsight and self.environment is None:
            raise ValueError("hindsight asks the environment which task was solved; give environment")
        return self
