"""A baseline that was played before: the folder of an earlier evaluation, run or collection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.config import Component, config_from_dict, read_document
from understudy.errors import ConfigError
from understudy.formats import read_episodes

from .config import EvaluateConfig
from .scores import task_id

EPISODES = "episodes"
"""Folder within an evaluation's that holds the episodes of its policy."""


_WITHIN = (Path(), Path("evaluate"), Path("held_out", "evaluate"))
"""Where an evaluation is in its own folder, in a run's, and in that of a run of iterations."""


_PLAYED = ("collect", "iteration_01/evaluate", "iteration_01/collect")
"""Where a run that has no evaluation of its own may have episodes."""


def _evaluation(folder: str) -> Path:
    """Return the evaluation that a folder is or holds; the folder itself where that is none."""
    found = (Path(folder) / within for within in _WITHIN)
    return next((path for path in found if (path / EPISODES).is_dir()), Path(folder))


def earlier_episodes(folder: str) -> Path:
    """Return where the episodes of an earlier evaluation, run or collection are."""
    evaluation = _evaluation(folder)
    inner = evaluation / EPISODES
    return inner if inner.is_dir() else evaluation


def earlier_label(folder: str) -> str:
    """Return what the policy of an earlier evaluation or collection is called, and where its episodes are."""
    settings = _settings(folder)
    given = {"": settings.get("policy"), **(settings.get("policies") or {})}
    components = {agent: config_from_dict(Component, one, source=folder) for agent, one in given.items() if one}
    return f"{label_of(components.pop('', None), components)} ({folder})" if components else folder


def label_of(policy: Component | None, policies: Mapping[str, Component]) -> str:
    """Return what policies are called in reports: their names, with the models that they play."""

    def one(component: Component) -> str:
        model = component.arguments.get("model", component.arguments.get("source"))
        name = component.name.rpartition(":")[2]
        return name if model is None else f"{name} {model}"

    named = [f"{agent}: {one(component)}" for agent, component in policies.items()]
    return ", ".join(([one(policy)] if policy is not None else []) + named)


def check_earlier(config: EvaluateConfig, folder: str, planned: set[str]) -> None:
    """Refuse an earlier evaluation that cannot be compared.

    Args:
        planned: what is to be played now, as `task_id` names it.

    Raises:
        ConfigError: it is this one, a run without one, or of another environment, or none of its tasks is played now.
    """
    found = _evaluation(folder)
    if found.resolve() == Path(config.output_dir).resolve():
        raise ConfigError(f"baseline: {folder} is where this evaluation is written; name an earlier one")
    within = [name for name in _PLAYED if (found / name).is_dir()]
    if within:
        raise ConfigError(
            f"baseline: {folder} is a run that has no evaluation; name one, or a folder of episodes: "
            f"{found / within[0]}"
        )
    before = _settings(folder).get("environment")
    now = config.environment.model_dump(mode="json") if config.environment is not None else None
    if before is not None and before != now:
        raise ConfigError(f"baseline: {folder} is of environment {before}, and {now} is played now")
    tasks = {task_id(episode.task, episode.seed) for episode in read_episodes(str(earlier_episodes(folder)))}
    if not tasks & planned:
        raise ConfigError(
            f"baseline: {folder} has {len(tasks):,} tasks, and none of them is played now with the same seed; play its "
            "split and seed, or name another baseline"
        )


def _settings(folder: str) -> dict[str, Any]:
    path = _evaluation(folder) / "config.yaml"
    return read_document(path).value if path.is_file() else {}
