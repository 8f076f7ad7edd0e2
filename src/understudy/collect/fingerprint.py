"""Which weights played: so that episodes of one model are never taken for those of another in its place.

A local model is named by its folder, and training anew puts other weights into the same folder. So what was played by
a model stands in the provenance of the folder that its episodes are in, and whoever goes on there is held against it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.config import Component, ConfigModel, dump_config
from understudy.errors import ConfigError
from understudy.runs import RunFolder

NUM_SAMPLES = 64
SAMPLE_BYTES = 4096


def fingerprint_models(
    output_dir: str | Path, components: Iterable[Component], *, overwrite: bool = False
) -> dict[str, str]:
    """Return a fingerprint of each local model that plays or has played into a folder, by its name.

    This is what ``models`` in the data of the folder's provenance shall be. A model that is not there now keeps the
    fingerprint that it had.

    Args:
        output_dir: the folder.
        components: what plays.
        overwrite: what the folder holds does not matter.

    Raises:
        ConfigError: the folder holds episodes of a model whose weights are others now.
    """
    before = {} if overwrite else _noted(Path(output_dir))
    now = _fingerprints(models_played(components))
    for name, fingerprint in now.items():
        if before.get(name, fingerprint) != fingerprint:
            raise ConfigError(
                f"{output_dir}: holds episodes of {name} as it was before: its weights have changed since; "
                "overwrite it, or name another output_dir"
            )
    return before | now


@contextmanager
def folder_of_play(
    config: ConfigModel, output_dir: str | Path, components: Iterable[Component], *, overwrite: bool
) -> Iterator[RunFolder]:
    """Open the folder that is played into for a block, noting which weights play; it is finished with the block.

    Args:
        config: written down in it.
        output_dir, components, overwrite: as of `fingerprint_models`.

    Raises:
        ConfigError: the folder holds something else, or episodes of other weights.
    """
    folder = RunFolder.open(
        output_dir,
        config=dump_config(config),
        data={"models": fingerprint_models(output_dir, components, overwrite=overwrite)},
        resume=not overwrite,
        overwrite=overwrite,
    )
    try:
        yield folder
    except BaseException as error:
        folder.fail(error)
        raise
    folder.close("finished")


def models_played(components: Iterable[Component]) -> list[str]:
    """Return all models that components play on this machine, each once."""
    return list(dict.fromkeys(model for component in components for model in _models_in(component)))


def local_model(component: Component | None) -> str | None:
    """Return the model that a policy plays on this machine; None for other policies."""
    if component is None or component.name != "local" or "model" not in component.arguments:
        return None
    return str(component.arguments["model"])


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


def _noted(folder: Path) -> dict[str, str]:
    """Return the fingerprints in a folder's provenance; none where there is no such run, as who opens it will say."""
    try:
        models: dict[str, str] = json.loads((folder / "provenance.json").read_bytes())["data"]["models"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return models


def _fingerprints(models: Iterable[str]) -> dict[str, str]:
    """Return the fingerprints of those models that are folders here."""
    folders = {name: _model_folder(name) for name in models if Path(name).exists()}
    return {name: _fingerprint(folder) for name, folder in folders.items() if folder is not None}


def _model_folder(name: str) -> Path | None:
    """Return where a model's weights are; None where there is none, as who loads it will say."""
    from understudy.models.export import find_model

    try:
        return find_model(name)
    except ConfigError:
        return None


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
