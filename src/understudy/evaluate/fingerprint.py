"""Which weights were played: so that episodes of one model are never taken for those of another in its place.

A local model is named by its folder, and training anew puts other weights into the same folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.config import Component
from understudy.errors import ConfigError

from .config import EvaluateConfig

NUM_SAMPLES = 64
SAMPLE_BYTES = 4096


def model_fingerprints(config: EvaluateConfig) -> dict[str, str]:
    """Return a fingerprint of each local model folder that is played, by its name."""
    from understudy.models.export import find_model

    return {name: _fingerprint(find_model(name)) for name in models_played(config) if Path(name).exists()}


def check_same_models(config: EvaluateConfig) -> None:
    """Refuse to go on with the episodes of other weights.

    Raises:
        ConfigError: a model that was played has changed since.
    """
    try:
        provenance = json.loads((Path(config.output_dir) / "provenance.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return
    before = provenance.get("data", {}).get("models", {})
    for name, fingerprint in model_fingerprints(config).items():
        if before.get(name, fingerprint) != fingerprint:
            raise ConfigError(
                f"{config.output_dir}: holds episodes of {name} as it was before: its weights have changed since; "
                "overwrite it, or name another output_dir"
            )


def models_played(config: EvaluateConfig) -> list[str]:
    """Return all models that are played on this machine, each once."""
    components: list[Component | None] = [config.policy, *config.policies.values()]
    if config.plays_baseline:
        policy, policies = config.before
        components += [policy, *policies.values()]
    components += [config.environment]  # a dream is played by a model too
    return list(dict.fromkeys(model for component in components if component for model in _models_in(component)))


def _models_in(component: Component) -> Iterator[str]:
    """Yield the local models that a component plays: its own, and those of what it is made of."""
    model = local_model(component)
    if model is not None:
        yield model
    world_model = component.arguments.get("world_model")
    if isinstance(world_model, Mapping):
        world_model = world_model.get("model")
    if isinstance(world_model, str):
        yield world_model
    for inner in _components_in(component.arguments):
        yield from _models_in(inner)


def _components_in(arguments: Mapping[str, Any]) -> Iterator[Component]:
    """Yield the components that are named among arguments, also in a mapping of several, as a mix has them."""
    for value in arguments.values():
        if not isinstance(value, Mapping):
            continue
        name, given = value.get("name"), value.get("arguments") or {}
        if isinstance(name, str) and isinstance(given, Mapping):
            yield Component(name=name, arguments=dict(given))
        else:
            yield from _components_in(value)


def local_model(component: Component | None) -> str | None:
    """Return the model that a policy plays on this machine; None for other policies."""
    if component is None or component.name != "local" or "model" not in component.arguments:
        return None
    return str(component.arguments["model"])


def _fingerprint(folder: Path) -> str:
    """Return a hash of parts of every weights file that are spread over it: whoever trains changes all parts."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for number in range(NUM_SAMPLES):
                file.seek(number * size // NUM_SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
