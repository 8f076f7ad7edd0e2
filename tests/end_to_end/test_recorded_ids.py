"""What a local model sampled is what is trained, id for id: from the collection's file to the batches of a step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from tests.training import config, make_base
from understudy.api import dry_run
from understudy.batching import Forest
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict
from understudy.formats import read_episodes
from understudy.rendering import load_tokenizer
from understudy.train.setup import make_planner
from understudy.types import SampledTokens

Prediction = tuple[tuple[int, ...], int]
"""A token and all that stands before it."""


def collected(model: Path, folder: Path) -> Path:
    """Let a model with random weights play: it writes what no encoding of a text would give."""
    arguments = {"model": str(model), "temperature": 1.0, "max_new_tokens": 24}
    settings = {
        "environment": {"name": "grid", "arguments": {"size": 4}},
        "policy": {"name": "local", "arguments": arguments},
        "num_episodes": 6,
        "max_turns": 3,
        "output_dir": str(folder),
    }
    return collect(config_from_dict(CollectConfig, settings)).path


def recorded(path: Path) -> list[SampledTokens]:
    """Return what was sampled, turn by turn; every action has it."""
    turns = [turn for episode in read_episodes(str(path)) for _, _, turn in episode.turns() if turn.action is not None]
    sampled = [turn.sampled for turn in turns if turn.sampled is not None]
    assert len(sampled) == len(turns) > 6
    return sampled


def predictions_of(sampled: SampledTokens) -> list[Prediction]:
    before = tuple(sampled.prompt_ids)
    outputs = tuple(sampled.output_ids)
    return [(before + outputs[:n], token) for n, token in enumerate(outputs)]


def predictions_in(forest: Forest) -> Counter[Prediction]:
    """Return what a batch predicts, each with its weight, by walking from every predicting token up to its root."""
    found: Counter[Prediction] = Counter()
    weight = np.bincount(forest.targets.entry_target, forest.targets.entry_weight)
    for target, (position, label) in enumerate(zip(forest.targets.position, forest.targets.label, strict=True)):
        before: list[int] = []
        while position >= 0:
            before.append(int(forest.ids[position]))
            position = forest.parent[position]
        found[tuple(before[::-1]), int(label)] += weight[target]
    return found


def test_batches_predict_the_sampled_ids_after_the_prompts_ids_and_nothing_else(tmp_path: Path) -> None:
    model = make_base(tmp_path / "model")
    path = collected(model, tmp_path / "episodes")
    run = config(model, tmp_path / "run", data={"path": str(path)}, train={"per_device_train_batch_size": 4})
    found = dry_run(run)
    planner, sampler, _ = make_planner(found.data, found.config.train, 1)
    plans = [planner.plan(step) for step in range(sampler.steps_per_epoch)]
    trained = sum((predictions_in(batch.forest) for plan in plans for batch in plan.micro_batches), Counter())
    sampled = recorded(path)
    assert trained == Counter(prediction for turn in sampled for prediction in predictions_of(turn))

    backend = load_tokenizer(model).backend
    texts = [backend.decode(list(turn.output_ids), skip_special_tokens=False) for turn in sampled]
    encoded = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert any(list(turn.output_ids) != ids for turn, ids in zip(sampled, encoded, strict=True)), "text would have done"
