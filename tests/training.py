"""What tests of training share: a tiny model on disk, a config around it, and runs in this process."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import understudy
from understudy.formats import read_episodes
from understudy.models.tiny import save_tiny, train_tokenizer
from understudy.types import Episode

ROOT = Path(__file__).resolve().parents[1]
WEATHER = ROOT / "examples" / "data" / "weather.jsonl"


@lru_cache(maxsize=1)
def weather_episodes() -> tuple[Episode, ...]:
    """The six example conversations."""
    return tuple(read_episodes(WEATHER))


def make_base(folder: Path, architecture: str = "qwen3", **sizes: int) -> Path:
    """Write a tiny model with a tokenizer trained on the example conversations."""
    tokenizer = train_tokenizer([WEATHER.read_text()], vocab_size=400)
    save_tiny(folder, architecture, tokenizer, seed=0, **{"hidden_size": 32, "num_layers": 1} | sizes)
    return folder


def config(base: Path, output: Path, **sections: Any) -> dict[str, Any]:
    """Return a small run's config; keyword arguments replace or add keys of its sections."""
    out: dict[str, Any] = {
        "output_dir": str(output),
        "model": {"path": str(base)},
        "data": {"path": str(WEATHER)},
        "train": {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_steps": 2},
    }
    for name, value in sections.items():
        out[name] = out.get(name, {}) | value if isinstance(value, dict) else value
    return out


def train(base: Path, output: Path, **sections: Any) -> Any:
    """Train with `config` in this process."""
    return understudy.train(config(base, output, **sections))


def metrics(folder: Path, key: str = "loss") -> list[float]:
    """Return one figure of every row of a run's metrics that has it."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]
    return [row[key] for row in rows if key in row]


def weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of a model folder, or of an adapter folder."""
    name = "adapter_model.safetensors" if (folder / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(folder / name)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two sets of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
