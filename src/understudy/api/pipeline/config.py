"""The config of a run: the stages' own configs under one roof, with what follows filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from understudy.collect import CollectConfig
from understudy.config import ConfigModel
from understudy.curate import CurateConfig
from understudy.evaluate import EvaluateConfig
from understudy.train.config import TrainConfig
from understudy.train.resume import leaves

from .following import STAGES, drop, fill_in, holding


class RunConfig(ConfigModel):
    """A run from an environment to proof. Each section is a stage and has the keys of its own command; a stage without
    a section is left out. What follows from the stages before (paths, the environment of the evaluation, the model that
    is evaluated) need not be given."""

    output_dir: str
    """The run's folder; each stage has a folder of its name in it."""

    seed: int = Field(0, ge=0)
    """Seed of every stage that has none of its own."""

    collect: CollectConfig | None = None
    """Let a policy play; the keys are those of `understudy collect`."""

    curate: CurateConfig | None = None
    """Choose what to train on; the keys are those of `understudy curate`."""

    train: TrainConfig | None = None
    """Train a model; the keys are those of `understudy train`."""

    evaluate: EvaluateConfig | None = None
    """Let the model play held-out tasks, before and after training; the keys are those of `understudy evaluate`."""

    @model_validator(mode="before")
    @classmethod
    def _with_what_follows(cls, value: Any) -> Any:
        return fill_in(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        if not self.stages:
            raise ValueError(f"there is nothing to do: give at least one of the sections {', '.join(STAGES)}")
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are there, in their order."""
        return tuple(name for name in STAGES if getattr(self, name) is not None)

    def following(self, stage: str) -> dict[str, Any]:
        """Return what a stage was given of the stages before it, by dotted keys: places, and what is no default."""
        value = self.model_dump(mode="json")
        own = {"output_dir", "seed", "resume"}
        return {
            key.partition(".")[2]: leaf
            for found in holding(value)
            if found.keys[0] == stage and found.keys[-1] not in own and (found.is_place or not found.is_default)
            for key, leaf in leaves(found.value, found.key)
            if leaf is not None
        }

    def own(self) -> dict[str, Any]:
        """Return the resolved config without what follows: it also holds with another `output_dir`."""
        value = self.model_dump(mode="json")
        for found in holding(value):
            drop(value, found.keys)
        return value

    def settings(self, stage: str) -> dict[str, Any]:
        """Return the resolved config of a stage without the places that follow, so the same wherever the run lies."""
        value = self.model_dump(mode="json")
        for found in holding(value):
            if found.is_place:
                drop(value, found.keys)
        section: dict[str, Any] = value[stage]
        return section
