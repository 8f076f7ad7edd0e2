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
from .loop_config import DemonstrationsSection, LoopSection, PreviousSection


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

    demonstrations: DemonstrationsSection | None = None
    """Episodes that are mixed into what is trained on."""

    iterations: int | None = Field(None, ge=1)
    """Go through the stages so often, each time with the model of the time before (online SFT, expert iteration,
    DAgger). May be raised later."""

    loop: LoopSection | None = None
    """How iterations go on from each other."""

    previous: PreviousSection | None = None
    """What an iteration was given of those before it; a loop writes this."""

    @model_validator(mode="before")
    @classmethod
    def _with_what_follows(cls, value: Any) -> Any:
        return _filled_in(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _has_a_stage(self) -> Self:
        if not self.stages:
            raise ValueError(f"there is nothing to do: give at least one of the sections {', '.join(STAGES)}")
        if self.iterations is None:
            if self.loop is not None:
                raise ValueError("loop says how iterations go on from each other; give iterations")
            mixed = self.demonstrations
            if mixed is not None and (self.train is None or mixed.path is None):
                raise ValueError("demonstrations are mixed into what is trained on; give train and demonstrations.path")
        return self

    @model_validator(mode="after")
    def _can_be_repeated(self) -> Self:
        if self.iterations is None:
            return self
        if self.collect is None or self.curate is None or self.train is None:
            raise ValueError("iterations collect, curate and train; give these sections (`curate: {}` keeps all)")
        if self.train.policies is not None:
            raise ValueError("iterations train one model; leave out train.policies")
        if self.evaluate is not None and self.train.objective.name == "world_model":
            raise ValueError(
                "iterations are compared by how the model plays, and objective world_model trains no actions; leave "
                "out evaluate, or train combined"
            )
        settings = self.loop or LoopSection()
        if settings.patience is not None and self.evaluate is None:
            raise ValueError("loop.patience waits for better evaluations; give evaluate")
        if self.evaluate is not None and self.evaluate.split == settings.split:
            raise ValueError(
                f"loop.split and evaluate.split are both {settings.split}: the best iteration would be shown on the "
                "tasks that it was chosen by; give another one"
            )
        if settings.beta and self.collect.labeler is None:
            raise ValueError("loop.beta is for labelled states; give collect.labeler")
        if settings.beta and self.collect.beta:
            raise ValueError("give either loop.beta or collect.beta, not both")
        if self.demonstrations is not None and self.demonstrations.path is None and self.is_played_by_model:
            raise ValueError("demonstrations.path: the first iteration is played by the model, so say what to mix in")
        return self

    @property
    def is_played_by_model(self) -> bool:
        """Whether the model that training starts from plays the first iteration."""
        policy = self.collect.policy if self.collect is not None else None
        if policy is None or self.train is None or policy.name != (self.loop or LoopSection()).policy.name:
            return False
        return policy.arguments.get("model") == self.train.model.path

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


def _filled_in(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's keys with what follows.

    Raises:
        ValueError: nobody is there to play the first iteration.
    """
    out = fill_in(value)
    collect = out.get("collect")
    is_loop = out.get("iterations") is not None and isinstance(out.get("train"), Mapping)
    if is_loop and isinstance(collect, Mapping) and not (collect.get("policy") or collect.get("policies")):
        raise ValueError(
            "collect.policy: say who plays the first iteration, such as expert; a tiny model is made of what that "
            "collects. Or give train.model.path: then the model plays from the beginning"
        )
    return out
