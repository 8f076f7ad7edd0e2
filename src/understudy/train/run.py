"""One training run, from prepared data to ``final/``."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.batching import Planner
from understudy.errors import CheckpointError, TrainError
from understudy.models.export import FINAL
from understudy.models.load import load_hf_tokenizer
from understudy.runs import RunFolder, read_metrics

from .adapter import ModelAdapter
from .card import Outcome, model_card
from .checkpoints import Checkpoint, Checkpoints, copy_model_files, read_checkpoint, read_training_state
from .engine import Engine
from .inputs import RunInputs
from .launch import rank, world_size
from .playing import Rollouts, undisturbed
from .plot import plot_loss
from .reporting import Reporter
from .resume import check_same_run, run_facts
from .self_check import self_check
from .setup import (
    check_fits,
    check_vocabulary,
    examples_per_step,
    is_sharded,
    load_trainable,
    make_engine,
    make_planner,
    make_runner,
    num_data_ranks,
    with_possible_layout,
)
from .sharding import load_sharded
from .trackers import Trackers
from .trainer import Ended, Evaluator, Trainer, TrainState

log = logging.getLogger("understudy.train")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Args:
        folder: the run's folder.
        final: the trained model; None where the run was interrupted.
        step, num_steps: optimiser steps done, and those of the whole run.
        loss: training loss of the last step of this process; None when it took none.
        eval_loss: last validation loss; None when this process validated nothing.
        best_loss, best_step: lowest validation loss of the whole run, and its step.
        signal: what interrupted it.
        is_early: it was stopped because the validation loss no longer fell.
        policies: the result of each, where a run trains several; it then has no model and no losses of its own, and its
            steps are all of theirs.
    """

    folder: Path
    final: Path | None
    step: int
    num_steps: int
    loss: float | None
    eval_loss: float | None
    best_loss: float | None
    best_step: int | None
    signal: signal.Signals | None
    is_early: bool
    policies: Mapping[str, TrainResult] = field(default_factory=dict)


def train(
    inputs: RunInputs,
    device: torch.device,
    folder: RunFolder | None,
    rollouts: Rollouts | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train a model on prepared data.

    Args:
        folder: the open run folder on the main rank; None on the others.
        rollouts: plays with the model whenever it is validated; None for nobody.
        should_stop: is asked after every step, and lets the run end as SIGTERM would; None for signals only.

    Raises:
        UnderstudyError: whatever cannot work, before training where that can be told, each with its mend.
    """
    config = inputs.config
    path = Path(config.output_dir)
    facts = run_facts(
        config,
        data_fingerprint=inputs.data.fingerprint,
        rendering_fingerprint=inputs.renderer.fingerprint(),
        examples_per_step=examples_per_step(config.train, num_data_ranks(config.train, world_size())),
    )
    checkpoints = Checkpoints(path, total_limit=config.train.save_total_limit, is_main=rank() == 0)
    checkpoints.remove_leftovers()
    found = checkpoints.newest() if config.resume == "auto" else None
    if found is not None:
        try:
            check_same_run(found.state, facts, str(found.path))
        except CheckpointError:
            if folder is not None:
                folder.restore_config()
            raise
    trainer, num_steps = _build(inputs, device, folder, checkpoints, found, facts, rollouts, should_stop)
    ended = trainer.run()
    if folder is not None and ended.signal is None:
        _finish(folder, inputs, checkpoints, trainer.state, ended, num_steps)
    return TrainResult(
        folder=path,
        final=path / FINAL if ended.signal is None else None,
        step=ended.step,
        num_steps=num_steps,
        loss=ended.loss,
        eval_loss=ended.eval_loss,
        best_loss=trainer.state.best_loss,
        best_step=trainer.state.best_step,
        signal=ended.signal,
        is_early=ended.is_early,
    )


def _build(
    inputs: RunInputs,
    device: torch.device,
    folder: RunFolder | None,
    checkpoints: Checkpoints,
    found: Checkpoint | None,
    facts: dict[str, Any],
    rollouts: Rollouts | None,
    should_stop: Callable[[], bool] | None,
) -> tuple[Trainer, int]:
    """Return the trainer, ready to go on from what was found, and the number of steps of the whole run."""
    data = inputs.data
    adapter = _load(inputs, found, device)
    if inputs.config.train.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    settings = with_possible_layout(adapter, inputs.config.train)
    check_fits(data, settings, takes_trees=settings is inputs.config.train)
    check_vocabulary(data, adapter.num_embeddings)
    _check_space(adapter.model, checkpoints.folder)
    planner, sampler, num_steps = make_planner(data, settings, num_data_ranks(settings, world_size()))
    runner, backend = make_runner(adapter, settings)
    if backend is not None:
        _check_backend(adapter, backend, planner)
    if settings.torch_compile:
        adapter.backbone.compile(dynamic=True)
    engine = make_engine(adapter, runner, settings, inputs.objective, data, num_steps=num_steps)
    torch.manual_seed(settings.seed + engine.rank)  # from here on dropout only; ranks must not drop the same
    state = _resumed(engine, found, num_steps)
    trackers = None
    if folder is not None:
        folder.note(**inputs.provenance())
        trackers = Trackers(settings.trackers, folder.path, settings, adapter.model, num_steps=num_steps)
    trainer = Trainer(
        engine,
        planner,
        Evaluator(engine, data.validation, settings) if data.validation else None,
        checkpoints,
        Reporter(folder, trackers, first_step=state.step, num_steps=num_steps),
        settings,
        device=device,
        save_more=_tokenizer_writer(inputs),
        facts=facts,
        num_steps=num_steps,
        steps_per_epoch=sampler.steps_per_epoch,
        state=state,
        play=_player(rollouts, adapter) if rollouts is not None else None,
        should_stop=should_stop,
    )
    return trainer, num_steps


def _load(inputs: RunInputs, found: Checkpoint | None, device: torch.device) -> ModelAdapter:
    """Return the model to train: whole on every device, or in shards."""
    arguments = (inputs.config, inputs.base, found.path if found else None, device)
    if is_sharded(inputs.config.train, world_size()):
        return load_sharded(*arguments)
    if inputs.config.train.fsdp:
        log.info("train.fsdp: of one process, all is in one shard: the whole model")
    return ModelAdapter(load_trainable(*arguments))


def _player(rollouts: Rollouts, adapter: ModelAdapter) -> Callable[[int], Mapping[str, float | None]]:
    """Return what plays with the model after so many steps."""

    def play(step: int) -> Mapping[str, float | None]:
        with undisturbed(adapter.model, adapter.device):
            return rollouts(adapter.model, step)

    return play


def _check_backend(adapter: ModelAdapter, backend: Any, planner: Planner) -> None:
    """Hold tree attention against plain rows on a part of the first step.

    Every rank checks its own; of a sharded model, which all must run together, all check that of the first.
    """
    batches = planner.plan(0, rank() if adapter.lockstep is None else 0).micro_batches
    if batches:
        checked = self_check(adapter, backend, batches[0].forest)
        log.info(
            "self-check: on %d tokens trees give the loss and gradients of %d separate rows (relative difference %.0e; "
            "attention: %s)",
            checked.num_tokens,
            checked.num_rows,
            max(checked.loss_difference, checked.gradient_difference),
            backend.name,
        )


def _check_space(model: nn.Module, folder: Path) -> None:
    """Refuse to start a run whose result the disk cannot hold: one checkpoint (AdamW's state included) and ``final/``.

    Raises:
        TrainError: says what is free and what is needed.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_adapter = len(trained) < sum(1 for _ in model.parameters())
    weights = sum(p.nbytes for p in (trained if is_adapter else model.parameters()))
    needed = 2 * weights + 2 * sum(p.nbytes for p in trained)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainError(
            f"{folder}: {free / 2**30:,.2f} GiB are free on this disk, but a checkpoint and the final model need "
            f"{needed / 2**30:,.2f} GiB; make room, or choose another output_dir"
        )


def _resumed(engine: Engine, found: Checkpoint | None, num_steps: int) -> TrainState:
    """Return where to go on, with the engine set to that moment."""
    if found is None:
        return TrainState()
    read_training_state(engine, found.path)
    log.info("going on from %s: step %d of %d", found.path, found.step, num_steps)
    return TrainState(**found.state["train"])


def _tokenizer_writer(inputs: RunInputs) -> Callable[[Path], None]:
    """Return what writes the tokenizer, with the chat template that was trained with."""
    tokenizer = load_hf_tokenizer(inputs.tokenizer, trust_remote_code=inputs.config.model.trust_remote_code)
    if inputs.config.rendering.chat_template is not None:
        tokenizer.chat_template = inputs.renderer.tokenizer.templates["default"]

    def write(folder: Path) -> None:
        tokenizer.save_pretrained(folder)

    return write


def _finish(
    folder: RunFolder, inputs: RunInputs, checkpoints: Checkpoints, state: TrainState, ended: Ended, num_steps: int
) -> None:
    """Make ``final/`` from the last checkpoint, or the best one, and the plot.

    Raises:
        CheckpointError: the best checkpoint is wanted, and is gone or damaged.
    """
    best = state.best_step if inputs.config.train.load_best_model_at_end else None
    step = ended.step if best is None else best
    if best is not None:
        try:
            read_checkpoint(checkpoints.path(best))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. It had the lowest validation loss, and train.load_best_model_at_end asks for it: set it to "
                "false and go on with --resume to get the last step's model"
            ) from error
    rows = read_metrics(folder.path / "metrics.jsonl")  # also of what was done before this process
    outcome = Outcome(ended.step, num_steps, step, _last(rows, "loss"), _last(rows, "eval_loss"), state.best_loss)
    facts = {name: value for name, value in inputs.provenance().items() if name.endswith("fingerprint")}
    card = model_card(inputs.config, inputs.base, inputs.data, outcome, facts)
    copy_model_files(checkpoints.path(step), folder.path / FINAL, {"README.md": card})
    plot_loss(folder.path / "metrics.jsonl", folder.path / "loss.png")
    folder.note(final_step=step, best_step=state.best_step, best_eval_loss=state.best_loss)


def _last(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return next((row[key] for row in reversed(rows) if key in row), None)
