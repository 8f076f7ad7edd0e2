"""Names of components and where they live.

One literal table for each family. A component is imported only when it is named. Other packages add theirs through the
entry-point groups ``understudy.<family>``, and a user's own is named in place as ``package.module:Class``.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

from .errors import ConfigError, did_you_mean

TABLES: dict[str, dict[str, str]] = {
    "formats": {
        "native": "understudy.formats.native:Native",
        "messages": "understudy.formats.messages:Messages",
        "prompt_completion": "understudy.formats.prompt_completion:PromptCompletion",
        "input_output": "understudy.formats.input_output:InputOutput",
        "sharegpt": "understudy.formats.sharegpt:ShareGPT",
        "alpaca": "understudy.formats.alpaca:Alpaca",
        "record_data": "understudy.formats.record_data:RecordData",
        "trajectories": "understudy.formats.trajectories:Trajectories",
    },
    "objectives": {
        "behavioral_cloning": "understudy.objectives.behavioral_cloning:BehavioralCloning",
        "world_model": "understudy.objectives.world_model:WorldModel",
        "combined": "understudy.objectives.combined:Combined",
    },
}


def names(family: str) -> list[str]:
    """Return all names of a family, built in first, then those of other installed packages."""
    return [*TABLES[family], *sorted(_entry_points(family))]


def load(family: str, name: str) -> Any:
    """Import and return the component called `name`.

    Raises:
        ConfigError: the name is unknown, or what it names cannot be imported.
    """
    target = TABLES[family].get(name)
    if target is not None:
        return _import(target, name)
    entry_points = _entry_points(family)
    if name in entry_points:
        return _import(entry_points[name], name)
    if ":" in name:
        return _import(name, name)
    known = ", ".join(names(family))
    kind = family.removesuffix("s")
    raise ConfigError(
        f"unknown {kind} {name!r}.{did_you_mean(name, names(family))} Known: {known}; or package.module:Class"
    )


def _entry_points(family: str) -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=f"understudy.{family}")}


def _import(target: str, name: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {name!r} ({target}): {error}") from error
