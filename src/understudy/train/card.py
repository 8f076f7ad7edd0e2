"""The model card of ``final/``: how this model was made, for whoever finds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.config import dump_document
from understudy.runs import package_versions

from .config import TrainConfig
from .data import PreparedData


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the card tells about how training went; None where it was not measured."""

    step: int
    num_steps: int
    saved_step: int
    loss: float | None
    eval_loss: float | None
    best_loss: float | None


def model_card(config: TrainConfig, base: str, data: PreparedData, outcome: Outcome, facts: dict[str, Any]) -> str:
    """Return the card as Markdown with the hub's header.

    Args:
        base: the model that training started from.
        facts: fingerprints of data and rendering.
    """
    header = {
        "library_name": "transformers" if config.lora is None else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["understudy", "supervised-fine-tuning", *(["lora"] if config.lora else [])],
    } | ({} if Path(base).exists() else {"base_model": base})  # the hub knows no local folders
    what = "A LoRA adapter for" if config.lora else "A model made from"
    made_of = f"a tiny {config.model.tiny} with random weights" if config.model.tiny else f"`{base}`"
    settings = {"objective": config.objective, "lora": config.lora, "train": config.train}
    changed = {
        name: section.model_dump(mode="json", exclude_defaults=True) for name, section in settings.items() if section
    }
    shown = {name: keys for name, keys in changed.items() if keys}
    parts = [
        f"---\n{dump_document(header)}---",
        f"# {config.train.run_name or config.output_dir.rstrip('/').rpartition('/')[2]}",
        f"{what} {made_of}, trained by supervised fine-tuning on agent trajectories with Understudy. The loss is on "
        "exactly the tokens that the objective names, each behind the ids that the model's server would have computed.",
        "## Data",
        _data_table(data),
        "## Training",
        _outcome_table(outcome),
        "Settings that are not Understudy's defaults:",
        f"```yaml\n{dump_document(shown) if shown else ''}```",
        "## Provenance",
        _provenance(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _data_table(data: PreparedData) -> str:
    rows = ["| source | episodes | trained trajectories | held out | trained tokens |", "|---|---:|---:|---:|---:|"]
    rows += [
        f"| {r.name} | {r.num_episodes:,} | {r.num_examples:,} | {r.num_held_out:,} | {r.num_targets:,} |"
        for r in data.reports
    ]
    return "\n".join(rows)


def _outcome_table(outcome: Outcome) -> str:
    facts = {
        "optimiser steps": f"{outcome.step:,} of {outcome.num_steps:,}",
        "weights of step": f"{outcome.saved_step:,}",
        "training loss (last step)": _loss(outcome.loss),
        "validation loss (last)": _loss(outcome.eval_loss),
        "validation loss (best)": _loss(outcome.best_loss),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())])


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _provenance(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items() if version)
    lines = [f"- {name.replace('_', ' ')}: `{value}`" for name, value in facts.items()]
    return "\n".join([*lines, f"- versions: {versions}"])
