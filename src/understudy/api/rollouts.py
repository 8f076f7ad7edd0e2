"""Playing within training: where environments and policies meet the trainer.

The model plays as it stands in memory, through policy ``local``: nothing is saved or loaded for it. The ranks of a run
share the episodes out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.collect import CollectConfig, Play, play_all, prepare
from understudy.collect.collection import agents_of, make_component, make_policies
from understudy.collect.interruptible import run_anywhere
from understudy.config import Component
from understudy.errors import ConfigError, UnderstudyError
from understudy.evaluate.scores import Scores, outcome_of, score
from understudy.formats import write_episodes
from understudy.policies import Policy
from understudy.train.config import TrainConfig
from understudy.train.launch import rank, world_size
from understudy.train.playing_config import EvaluationSection
from understudy.types import Episode

if TYPE_CHECKING:
    from understudy.rendering import Renderer

FOLDER = "rollouts"
"""Folder within the run's that holds the episodes."""

MODEL = "the model being trained"

log = logging.getLogger("understudy.train")


def plan_rollouts(config: TrainConfig) -> list[Play]:
    """Return which episodes are played by a config that asks for playing.

    Raises:
        ConfigError: environment, policies or arguments cannot be used, there are too few tasks, or an agent whose part
            the model does not learn has no policy.
    """
    assert config.evaluation is not None
    plan, policies = prepare(_collection(config.evaluation), overwrite=True)
    with closing(plan):
        learned = config.data.agents
        for agent in policies:
            if learned is not None and agent not in learned and agent not in config.evaluation.policies:
                raise ConfigError(
                    f"evaluation.policies.{agent}: the model learns what {', '.join(learned)} did; say who acts for "
                    f"{agent}"
                )
        return list(plan)


class TrainingRollouts:
    """Plays the same held-out tasks each time it is called; see `understudy.train.playing.Rollouts`.

    Args:
        config: of the training run; its section `evaluation` says what is played.
        renderer: that of the training data, so that the model is asked as it is trained.
    """

    def __init__(self, config: TrainConfig, renderer: Renderer) -> None:
        assert config.evaluation is not None
        self._config = config.evaluation
        self._collection = _collection(config.evaluation)
        self._plays = plan_rollouts(config)
        self._renderer = renderer
        self._folder = Path(config.output_dir) / FOLDER

    @classmethod
    def of(cls, config: TrainConfig, renderer: Renderer) -> TrainingRollouts | None:
        """Return what a training config asks for; None where it asks for no playing."""
        return None if config.evaluation is None else cls(config, renderer)

    def __call__(self, model: Any, step: int) -> Mapping[str, float | None]:
        """Play, write the episodes down, and return the scores.

        Raises:
            UnderstudyError: the model cannot play here at all; on all ranks.
        """
        from understudy.train.distributed import gathered

        episodes: list[Episode] = []
        problem: UnderstudyError | None = None
        try:
            run_anywhere(self._play(model, episodes))
        except UnderstudyError as error:  # the other ranks wait for what this one has played
            problem = error
        parts = gathered((episodes, problem))
        for _, found in parts:
            if found is not None:
                raise found
        order = {play.id: number for number, play in enumerate(self._plays)}
        played = sorted((episode for part, _ in parts for episode in part), key=lambda episode: order[episode.id])
        if rank() == 0:
            self._folder.mkdir(exist_ok=True)
            write_episodes(self._folder / f"step_{step:06d}.jsonl", played, "native")
        return _figures(score([outcome_of(episode) for episode in played]))

    async def _play(self, model: Any, episodes: list[Episode]) -> None:
        """Play this rank's episodes."""
        policies = self._policies(model)
        try:
            await play_all(
                iter(self._plays[rank() :: world_size()]),
                lambda: make_component("environments", self._config.environment),
                policies,
                episodes.append,
                concurrency=self._config.concurrency,
                max_turns=self._config.max_turns,
                timeout_seconds=self._config.episode_timeout_seconds,
            )
        finally:
            for policy in {id(policy): policy for policy in policies.values()}.values():
                await policy.close()

    def _policies(self, model: Any) -> dict[str, Policy]:
        """Return who plays: made anew each time, because what a policy keeps is of other weights or another loop."""
        from understudy.policies.local import LocalPolicy

        profile = self._renderer.profile.model_dump(mode="json", exclude_defaults=True)
        local = LocalPolicy.of(model, self._renderer.tokenizer, profile=profile, **self._config.arguments)
        made = make_policies(self._collection, agents_of(self._config.environment))
        return {agent: policy if agent in self._config.policies else local for agent, policy in made.items()}


def _collection(config: EvaluationSection) -> CollectConfig:
    """Return the collection that has the same episodes."""
    return CollectConfig(
        environment=config.environment,
        policy=Component(name="local", arguments={"model": MODEL, **config.arguments}),
        policies=config.policies,
        split=config.split,
        num_episodes=config.num_tasks * config.samples_per_task,
        samples_per_task=config.samples_per_task,
        max_turns=config.max_turns,
        seed=config.seed,
        output_dir=FOLDER,
    )


def _figures(scores: Scores) -> dict[str, float | None]:
    """Return the figures that go into the metrics."""
    if scores.num_errors:
        reason = next(iter(scores.errors))
        log.warning("%d of %d episodes ended by a fault, most by: %s", scores.num_errors, scores.num_episodes, reason)
    figures: dict[str, float | None] = {}
    for name, found in (("success", scores.success), ("reward", scores.reward)):
        if found is not None:
            figures[name] = found.value
            bounds = {f"{name}_low": found.low, f"{name}_high": found.high}
            figures |= {bound: value for bound, value in bounds.items() if math.isfinite(value)}
    for name, one in scores.environments.items():
        figures[f"success/{name}"] = one.success.value if one.success is not None else None
    figures["turns"] = scores.turns.value if scores.turns is not None else None
    return figures | {"num_episodes": scores.num_episodes, "num_errors": scores.num_errors}
