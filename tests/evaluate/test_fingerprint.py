"""Every model that is played is known, wherever it stands in a config."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.collect.fingerprint import models_played
from understudy.config import config_from_dict
from understudy.evaluate import EvaluateConfig

LOCAL = {"name": "local", "arguments": {"model": "acts"}}
DREAM = {"name": "dream", "arguments": {"environment": "grid", "world_model": {"model": "dreams"}}}


@pytest.mark.parametrize(
    ("config", "models"),
    [
        ({"policy": LOCAL}, ["acts"]),
        ({"policy": LOCAL, "baseline": {"name": "local", "arguments": {"model": "acted"}}}, ["acts", "acted"]),
        ({"policy": {"name": "mixture", "arguments": {"chance": 0.5, "other": LOCAL}}}, ["acts"]),
        (
            {"policy": {"name": "planner", "arguments": {"policy": LOCAL, "world_model": "imagines"}}},
            ["imagines", "acts"],
        ),
        ({"policy": LOCAL, "environment": DREAM}, ["acts", "dreams"]),
        (
            {"environment": {"name": "mix", "arguments": {"environments": {"a": "grid", "b": DREAM | {"ratio": 2}}}}},
            ["dreams"],
        ),
        ({"environment": {"name": "mine.py:Inn", "arguments": {"guest": {"name": "Bo", "arguments": "many"}}}}, []),
    ],
    ids=["policy", "baseline", "mixture", "planner", "dream", "mix of dreams", "no component"],
)
def test_every_model_that_is_played_is_found(config: dict[str, Any], models: list[str]) -> None:
    base = {"environment": {"name": "grid"}, "policy": {"name": "random"}, "output_dir": "out"}
    assert models_played(config_from_dict(EvaluateConfig, base | config).components) == models
