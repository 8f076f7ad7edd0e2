"""Understudy: supervised fine-tuning of LLM agents on trajectories.

Importing this package is fast and loads neither torch nor transformers; what needs them loads them when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {"train": "understudy.train", "dry_run": "understudy.api", "run": "understudy.api.pipeline"}


def __getattr__(name: str) -> Any:
    """Load ``understudy.train(…)``, ``understudy.dry_run(…)`` and ``understudy.run(…)`` when they are first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if _LAZY[name] == f"{__name__}.{name}" else getattr(module, name)
