"""Loading what a run has made, for use and not for training: a whole model, or an adapter on its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .export import base_of, find_model
from .load import DtypeName, is_adapter, load_model
from .lora import load_adapter

if TYPE_CHECKING:
    import torch
    from torch import nn


def model_folder(name: str | Path) -> str:
    """Return the folder that a name means: itself, or the ``final/`` of a run's folder; a hub name stays as it is.

    Raises:
        ConfigError: the folder holds no model.
    """
    return str(find_model(name)) if Path(name).exists() else str(name)


def load_trained(
    name: str | Path,
    *,
    dtype: DtypeName = "auto",
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
) -> nn.Module:
    """Load a model folder, an adapter folder, the folder of a run, or a model of the hub.

    Raises:
        ConfigError: there is no such model, or it cannot be loaded.
    """
    folder = model_folder(name)
    has_adapter = is_adapter(folder)
    base = base_of(folder) if has_adapter else folder
    model = load_model(base, dtype=dtype, trust_remote_code=trust_remote_code, device=device)
    return load_adapter(model, folder) if has_adapter else model
