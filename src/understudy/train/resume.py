"""What a run must have in common with the one that it goes on with.

The plan of a step is a pure function of data, config, seed and step, so a run can only go on as if nothing had happened
when these are the same. What decides no result may change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from understudy.errors import CheckpointError

from .config import TrainConfig

log = logging.getLogger("understudy.train")

_FREE = frozenset(
    {
        "output_dir",
        "resume",
        # Where the data lies; that it is the same is told by its fingerprint.
        "data.path",
        "data.format",
        "data.validation_path",
        "data.validation_format",
        "data.store.path",
        "data.validation_store.path",
        # Decide what is claimed, which a run that goes on has done.
        "data.store.max_trained_count",
        "data.store.retrained_interval_seconds",
        "data.store.lease_seconds",
        "data.skip_bad",
        # Their product is held against the checkpoint's.
        "train.per_device_train_batch_size",
        "train.gradient_accumulation_steps",
        # How it is computed, and what is written down.
        "train.max_tokens_per_batch",
        "train.layout",
        "train.device",
        "train.fsdp",
        "train.fsdp_size",
        "train.tp_size",
        "train.gradient_checkpointing",
        "train.activation_offloading",
        "train.torch_compile",
        "train.save_steps",
        "train.save_total_limit",
        "train.save_best",
        "train.load_best_model_at_end",
        "train.eval_steps",
        "train.eval_on_start",
        "train.early_stopping_patience",
        "train.early_stopping_threshold",
        "train.report_to",
        "train.run_name",
        "train.project",
    }
)
_FREE_IN_SOURCES = frozenset({"path", "format", "max_trained_count", "retrained_interval_seconds", "lease_seconds"})
_LENGTH = frozenset({"train.num_train_epochs", "train.max_steps"})


def run_facts(
    config: TrainConfig, *, data_fingerprint: str, rendering_fingerprint: str, examples_per_step: int
) -> dict[str, Any]:
    """Return what is saved with a checkpoint to hold later runs against: JSON."""
    return {
        "config": config.model_dump(mode="json"),
        "data_fingerprint": data_fingerprint,
        "rendering_fingerprint": rendering_fingerprint,
        "examples_per_step": examples_per_step,
    }


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any], checkpoint: str) -> None:
    """Refuse to go on with a run that computed something else.

    Raises:
        CheckpointError: names every setting that differs, then the data, then the rendering.
    """
    before, after = dict(leaves(saved["config"])), dict(leaves(now["config"]))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    refused = [key for key in changed if not may_change(key)]
    problems = [f"{key} was {before.get(key)!r} and is {after.get(key)!r}" for key in refused]
    if saved["examples_per_step"] != now["examples_per_step"]:
        problems.append(
            f"an optimiser step had {saved['examples_per_step']} trajectories over all devices and has "
            f"{now['examples_per_step']}"
        )
    if not problems and saved["rendering_fingerprint"] != now["rendering_fingerprint"]:
        problems.append("the tokenizer, the chat template or the stop tokens are not the same")
    elif not problems and saved["data_fingerprint"] != now["data_fingerprint"]:
        problems.append("the data is not the same")
    if problems:
        raise CheckpointError(
            f"cannot go on from {checkpoint}: {'; '.join(problems)}. Set it back, or start anew in another output_dir"
        )
    for key in changed:
        if key in _LENGTH:
            log.warning(
                "%s was %r and is %r: the learning rate goes on along the new schedule", key, before[key], after[key]
            )


def may_change(key: str) -> bool:
    """Return whether a run that is not finished can go on with another value of a key of its config."""
    if key.partition(".")[0] == "evaluation":  # playing changes no loss
        return True
    if key.startswith("data.sources."):
        return key.rpartition(".")[2] in _FREE_IN_SOURCES
    return key in _FREE or key in _LENGTH


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted keys."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from leaves(inner, f"{path}.{key}" if path else key)
