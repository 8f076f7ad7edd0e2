"""One model for all tests here: it acts like the wanderer, and knows what the corridor answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import understudy
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict

CORRIDOR = f"{__package__}.corridor:Corridor"
WANDERER = f"{__package__}.corridor:Wanderer"


def collected(folder: Path, **settings: Any) -> Path:
    """Collect in the corridor, and return the file of episodes."""
    base = {"environment": {"name": CORRIDOR}, "policy": {"name": WANDERER}, "output_dir": str(folder)}
    return collect(config_from_dict(CollectConfig, base | settings)).path


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks at random, twenty of each task."""
    return collected(tmp_path_factory.mktemp("walks") / "rows", num_episodes=300, samples_per_task=20)


@pytest.fixture
def model(trained: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model by a relative name.

    What is drawn in an episode depends on its id, and that on the model's name: so it is the same in every run.
    """
    monkeypatch.chdir(trained.parent)
    return trained.name


@pytest.fixture(scope="session")
def trained(walks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corridor") / "run"
    understudy.train(
        {
            "output_dir": str(folder),
            "model": {"tiny": "qwen3", "hidden_size": 64, "num_layers": 2, "vocab_size": 300},
            "data": {"path": str(walks)},
            "objective": {"name": "combined"},
            "train": {
                "max_steps": 120, "per_device_train_batch_size": 32, "learning_rate": 1e-2, "warmup_steps": 5,
                "save_steps": 0,
            },
        }
    )  # fmt: skip
    return folder
