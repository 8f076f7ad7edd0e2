"""From what a run has saved to a folder that servers load: adapters merged, training state left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from understudy.errors import ConfigError

from .load import ADAPTER_CONFIG, DtypeName, is_adapter, load_hf_tokenizer, load_model
from .lora import load_adapter

FINAL = "final"
"""Folder within a run's folder that holds the trained model."""


def find_model(path: str | Path) -> Path:
    """Return the model that a path means: itself, or the ``final/`` of a run's folder.

    Raises:
        ConfigError: there is no model.
    """
    path = Path(path)
    for folder in (path, path / FINAL):
        if is_adapter(folder) or (folder / "config.json").is_file():
            return folder
    steps = sorted(entry.name for entry in path.glob("checkpoint-*")) if path.is_dir() else []
    hint = f"; it has {', '.join(steps)}, name one" if steps else ""
    raise ConfigError(f"{path}: holds no model, no adapter and no final/{hint}")


def base_of(adapter: str | Path) -> str:
    """Return the name of the model that an adapter was trained on.

    Raises:
        ConfigError: the adapter does not say.
    """
    try:
        config = json.loads((Path(adapter) / ADAPTER_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{adapter}/{ADAPTER_CONFIG}: cannot be read: {error}") from error
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{adapter}/{ADAPTER_CONFIG}: names no base model; give it with --base")
    return base


def whole_model(path: str | Path) -> str:
    """Return the model that an adapter was trained on; any other model is whole itself.

    Raises:
        ConfigError: the adapter does not say.
    """
    return base_of(path) if is_adapter(path) else str(path)


def export_model(
    source: str | Path,
    target: str | Path,
    *,
    base: str | None = None,
    dtype: DtypeName = "auto",
    trust_remote_code: bool = False,
) -> str:
    """Write a whole model, with its tokenizer, to a new folder; an adapter is merged into its base.

    Args:
        source: a run's folder, a checkpoint, a model folder or an adapter folder.
        base: the adapter's base model; by default the one that it names.
        dtype: of what is written; ``auto`` keeps it.

    Returns:
        What was done, in a few words.

    Raises:
        ConfigError: the source holds no model, or the target is there already.
    """
    folder, target = find_model(source), Path(target)
    if target.exists():
        raise ConfigError(f"{target}: exists already; name another folder")
    if is_adapter(folder):
        base = base or base_of(folder)
        model = load_model(base, dtype=dtype, trust_remote_code=trust_remote_code)
        model = load_adapter(model, folder).merge_and_unload(safe_merge=True)
        done = f"merged the adapter in {folder} into {base}"
    elif base is not None:
        raise ConfigError(f"{folder}: is a whole model, so it has no base")
    else:
        model = load_model(folder, dtype=dtype, trust_remote_code=trust_remote_code)
        done = f"copied the model in {folder}"
    tokenizer = load_hf_tokenizer(folder, trust_remote_code=trust_remote_code)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        card = folder / "README.md"
        if card.is_file():
            shutil.copyfile(card, temporary / card.name)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return done
