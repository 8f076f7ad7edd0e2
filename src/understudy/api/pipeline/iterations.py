"""The iterations of a loop as configs: each is a run like any other, whose `previous` names what came before.

Everything here is a function of the loop's config and an iteration's number, so a loop that goes on needs no memory
but its folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.api.train import TINY_BASE
from understudy.models.export import FINAL

from .config import RunConfig
from .loop_config import LoopSection

HELD_OUT = "held_out"
"""Folder within a loop's that holds the evaluation of its best model."""

_KEPT_OF_MODEL = ("dtype", "load_in_4bit", "trust_remote_code")
"""Keys of `train.model` that hold for whatever model it is."""


def settings_of(config: RunConfig) -> LoopSection:
    """Return how a loop's iterations go on from each other."""
    return config.loop or LoopSection()


def iteration_folder(config: RunConfig, number: int) -> Path:
    """Return the folder of an iteration; they are numbered from 1."""
    return Path(config.output_dir) / f"iteration_{number:02d}"


def iteration_config(config: RunConfig, number: int) -> RunConfig:
    """Return an iteration as a run.

    Args:
        config: of the loop.
        number: of the iteration, from 1.
    """
    assert config.collect is not None
    value = config.own() | {"iterations": None, "loop": None, "output_dir": str(iteration_folder(config, number))}
    if _collects(config, number):
        value["collect"] |= _collecting(config, number)
        value["curate"].pop("replay_path", None)
    else:
        value |= {"collect": None, "curate": None}
        environment = config.collect.environment.model_dump(mode="json")
        playing = {"environment": environment, "max_turns": config.collect.max_turns}
        for section in (value["evaluate"], value["train"].get("evaluation")):
            if section is not None:
                section |= {key: item for key, item in playing.items() if section.get(key) is None}
    if value["evaluate"] is not None:
        value["evaluate"] |= {"split": settings_of(config).split}
        value["evaluate"].pop("baseline", None)
    if number > 1:
        value["previous"] = _previous(config, number)
        if value["previous"].get("model") is not None:
            value["train"]["model"] = {key: value["train"]["model"][key] for key in _KEPT_OF_MODEL}
    value["demonstrations"] = _demonstrations(config, number)
    return RunConfig.model_validate(value)


def held_out_config(config: RunConfig, best: int) -> RunConfig:
    """Return the run that evaluates the best iteration's model on tasks that nothing was chosen by.

    It is held against the model that the loop began with, unless the loop names another baseline.
    """
    assert config.evaluate is not None
    assert config.evaluate.policy is not None
    evaluate = config.evaluate.model_dump(mode="json") | {"loss": None, "world_model": None}
    if config.own()["evaluate"].get("baseline") is None:
        del evaluate["baseline"]
    for key in ("output_dir", "seed"):
        del evaluate[key]
    del evaluate["policy"]["arguments"]["model"]
    previous = {"player": trained_model(config, best), "before": first_model(config)}
    seed = {"seed": config.evaluate.seed}
    folder = Path(config.output_dir) / HELD_OUT
    value = {"output_dir": str(folder), "seed": config.seed, "evaluate": evaluate | seed, "previous": previous}
    return RunConfig.model_validate(value)


def trained_model(config: RunConfig, number: int) -> str:
    """Return the folder of the model that an iteration has trained."""
    return str(iteration_folder(config, number) / "train" / FINAL)


def first_model(config: RunConfig) -> str:
    """Return the model that the loop begins with: the one that it was given, or the tiny one that was made."""
    assert config.train is not None
    given = config.train.model.path
    return given if given is not None else str(iteration_folder(config, 1) / "train" / TINY_BASE)


def _collects(config: RunConfig, number: int) -> bool:
    return (number - 1) % settings_of(config).collect_every == 0


def _collecting(config: RunConfig, number: int) -> dict[str, Any]:
    """Return the keys of `collect` that differ from one iteration to the next: who plays, and which tasks."""
    assert config.collect is not None
    loop, collect = settings_of(config), config.collect
    policy = collect.policy if number == 1 else loop.policy
    num_earlier = (number - 1) // loop.collect_every
    num_tasks = -(-(collect.num_episodes or 0) // collect.samples_per_task)
    keys: dict[str, Any] = {"first_task": collect.first_task + num_earlier * num_tasks}
    if policy is not None:
        keys["policy"] = policy.model_dump(mode="json")
    if loop.beta:
        keys["beta"] = loop.beta[min(number, len(loop.beta)) - 1]
    return keys


def _previous(config: RunConfig, number: int) -> dict[str, Any]:
    """Return what an iteration is given of those before it."""
    assert config.train is not None
    loop = settings_of(config)
    collected = [earlier for earlier in range(1, number) if _collects(config, earlier)]
    previous: dict[str, Any] = {}
    if loop.train_from == "last":
        previous["model"] = trained_model(config, number - 1)
    elif config.train.model.path is None:
        previous["model"] = first_model(config)
    if config.evaluate is not None:
        previous["evaluation"] = str(iteration_folder(config, number - 1) / "evaluate")
    if not _collects(config, number):
        files = _kept(config, collected[-1])
        return previous | dict(zip(("data", "validation"), files, strict=False))
    previous["player"] = trained_model(config, number - 1)
    if _has_demonstrations_of_its_own(config):
        collected.remove(1)
    if loop.replay and collected:
        previous["replay"] = _kept(config, collected[-1])
    return previous


def _kept(config: RunConfig, number: int) -> list[str]:
    """Return the files that an iteration has chosen: to train on, and to validate on where tasks are held out."""
    assert config.curate is not None
    names = ["train"] + ["validation"] * bool(config.curate.validation_split)
    folder = iteration_folder(config, number) / "curate"
    return [str(folder / f"{name}.{config.curate.output_format}") for name in names]


def _has_demonstrations_of_its_own(config: RunConfig) -> bool:
    """Return whether what the first iteration kept is mixed into every later training."""
    return config.demonstrations is not None and config.demonstrations.path is None


def _demonstrations(config: RunConfig, number: int) -> dict[str, Any] | None:
    if config.demonstrations is None:
        return None
    value = config.demonstrations.model_dump(mode="json")
    if not _has_demonstrations_of_its_own(config):
        return value
    return value | {"path": _kept(config, 1)[0], "format": "native"} if number > 1 else None
