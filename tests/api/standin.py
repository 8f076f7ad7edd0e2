"""A policy in the place of trained models: it plays as well as the number of its iteration says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from understudy.policies.mixture import MixturePolicy
from understudy.types import JSON

CHANCES = {1: 0.2, 2: 0.5, 3: 0.7, 4: 0.9}
"""Iteration whose model plays -> its success rate."""


class StandIn(MixturePolicy):
    """Succeeds with the chance of the iteration that its model is of; the model has to be there."""

    name = "stand-in"

    def __init__(self, model: str, **arguments: Any) -> None:
        found = re.search(r"iteration_(\d+)/train/final$", model)
        assert found is not None, model
        super().__init__(CHANCES[int(found[1])], per="episode", **arguments)
        self.model = model

    def identity(self) -> JSON:
        return {"name": self.name, "model": Path(self.model).parts[-3]}

    def for_episode(self, start: Any) -> Any:
        assert (Path(self.model) / "model.safetensors").exists()
        return super().for_episode(start)
