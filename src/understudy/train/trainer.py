"""The loop: one optimiser step after the other, with validation, checkpoints and an end that can be asked for.

The loop knows the engine's interface only, so it is the same whatever the model is spread over. Everything that a step
depends on is either a pure function of its number (the plan) or saved in a checkpoint (weights, optimiser, schedule,
random numbers), so a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from understudy.batching import Planner, Sampler, Source
from understudy.errors import TrainError

from .checkpoints import Checkpoints, write_training_state
from .config import TrainSection
from .engine import Engine
from .interruption import StopRequest
from .reporting import Reporter
from .stats import StepStats

# Examples of one evaluation batch on one rank. Decides nothing but how many prefixes can be shared.
_EVALUATION_BATCH_SIZE = 32

log = logging.getLogger("understudy.train")


@dataclass(slots=True)
class TrainState:
    """Where a run is; saved with every checkpoint.

    Args:
        step: optimiser steps done.
        best_loss, best_step: the lowest validation loss so far, and the step after which it was measured.
        num_without_gain: validations in a row that were not better.
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    num_without_gain: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How the loop ended: at the end, by early stopping, or by a signal. Losses are the last ones measured."""

    step: int
    loss: float | None
    eval_loss: float | None
    signal: signal.Signals | None = None
    is_early: bool = False


class Evaluator:
    """Measures the loss on held-out examples.

    Args:
        sources: the examples; each source is reported under its name.
    """

    def __init__(self, engine: Engine, sources: Sequence[Source], config: TrainSection) -> None:
        sizes = [len(source.examples) for source in sources]
        batch_size = _EVALUATION_BATCH_SIZE * engine.world_size
        self._engine = engine
        self._names = [source.name for source in sources]
        self._sampler = Sampler(sizes, batch_size=batch_size, seed=0, shuffle=False)
        self._planner = Planner(
            sources,
            self._sampler,
            layout=config.layout,
            max_tokens_per_batch=config.max_tokens_per_batch,
            world_size=engine.world_size,
        )

    def run(self) -> StepStats:
        """Return the loss over all held-out examples."""
        plans = (self._planner.plan(step, self._engine.rank) for step in range(self._sampler.steps_per_epoch))
        return self._engine.evaluate(plans, self._names)


class Trainer:
    """Runs the loop.

    Args:
        planner: plans any step.
        evaluator: None where nothing is held out.
        save_more: writes into a checkpoint what belongs to the model besides its weights (tokenizer, template); is
            called on the main rank.
        facts: JSON that is saved with every checkpoint, to hold a resumed run against.
        num_steps: of the whole run.
        steps_per_epoch: between two validations, or two checkpoints, where `eval_steps` or `save_steps` is null.
        play: plays with the model as it is after so many steps, and returns figures; None for no playing.
        should_stop: is asked after every step, and lets the run end as a signal would; None for signals only.
    """

    def __init__(
        self,
        engine: Engine,
        planner: Planner,
        evaluator: Evaluator | None,
        checkpoints: Checkpoints,
        reporter: Reporter,
        config: TrainSection,
        *,
        device: torch.device,
        save_more: Callable[[Path], None],
        facts: Mapping[str, Any],
        num_steps: int,
        steps_per_epoch: int,
        state: TrainState | None = None,
        play: Callable[[int], Mapping[str, float | None]] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.state = state or TrainState()
        self._engine = engine
        self._planner = planner
        self._evaluator = evaluator
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._config = config
        self._device = device
        self._save_more = save_more
        self._facts = dict(facts)
        self._num_steps = num_steps
        self._eval_steps = config.eval_steps or steps_per_epoch
        self._save_steps = steps_per_epoch if config.save_steps is None else config.save_steps
        self._play = play
        self._should_stop = should_stop
        self._saved_step = self.state.step  # a run begins at 0, with nothing to save, or at a checkpoint
        self._epoch = 0.0
        self._loss: float | None = None
        self._eval_loss: float | None = None

    def run(self) -> Ended:
        """Go on from the state's step to the end, and leave a checkpoint of where it ended.

        Raises:
            TrainError: a loss or gradient is not finite. The weights before that step are saved.
            CheckpointError: a checkpoint could not be saved.
        """
        with StopRequest(self._should_stop) as stop, self._reporter:
            if self.state.step == 0 and self._config.eval_on_start:
                self._evaluate()
            while self.state.step < self._num_steps and not self._is_out_of_patience():
                self._step()
                if self._due(self._eval_steps):
                    self._evaluate()
                received = stop.received(self._device)
                if received or self._is_out_of_patience() or self._due(self._save_steps):
                    self._save()
                if received:
                    return Ended(self.state.step, self._loss, self._eval_loss, received)
        is_early = self.state.step < self._num_steps
        return Ended(self.state.step, self._loss, self._eval_loss, is_early=is_early)

    def _step(self) -> None:
        """Take one optimiser step."""
        started = time.perf_counter()
        plan = self._planner.plan(self.state.step, self._engine.rank)
        totals = self._engine.global_weight_sums(plan)
        stats = self._engine.forward_backward(plan, totals)
        learning_rate = self._engine.learning_rate()
        try:
            self._engine.optimizer_step(stats)
        except TrainError as error:
            self._save()
            raise TrainError(f"step {self.state.step + 1}: {error}") from error
        self.state.step += 1
        self._epoch, self._loss = plan.epoch, stats.loss
        self._reporter.step(self.state.step, plan.epoch, learning_rate, stats, seconds=time.perf_counter() - started)

    def _evaluate(self) -> None:
        """Measure the loss on what is held out, then play; both only where that is wanted."""
        if self._evaluator is not None:
            self._validate(self._evaluator)
        if self._play is not None:
            started = time.perf_counter()
            figures = self._play(self.state.step)
            self._reporter.rollouts(self.state.step, self._epoch, figures, seconds=time.perf_counter() - started)

    def _validate(self, evaluator: Evaluator) -> None:
        """Validate; save the checkpoint when it is the best so far and that is wanted."""
        started = time.perf_counter()
        stats = evaluator.run()
        seconds = time.perf_counter() - started
        is_best = self._note(stats.loss) if self.state.step else False
        self._reporter.evaluation(self.state.step, self._epoch, stats, seconds=seconds, is_best=is_best)
        if is_best and self._config.save_best:
            self._save()

    def _note(self, loss: float) -> bool:
        """Take in a validation loss; return whether it is the best so far."""
        state, self._eval_loss = self.state, loss
        gain = math.inf if state.best_loss is None else state.best_loss - loss
        if not math.isfinite(loss):
            gain = -math.inf
        state.num_without_gain = 0 if gain > self._config.early_stopping_threshold else state.num_without_gain + 1
        if gain > 0:
            state.best_loss, state.best_step = loss, state.step
        return gain > 0

    def _due(self, every: int) -> bool:
        """Return whether something that is done every so many steps, and at the end, is due now."""
        step = self.state.step
        return step == self._num_steps or (every > 0 and step % every == 0)

    def _is_out_of_patience(self) -> bool:
        patience = self._config.early_stopping_patience
        return patience is not None and self.state.num_without_gain >= patience

    def _save(self) -> None:
        """Save a checkpoint of this step, unless it is there already."""
        step = self.state.step
        if step == self._saved_step:
            return
        state = self._facts | {"train": asdict(self.state)}
        protected = [] if self.state.best_step is None else [self.state.best_step]
        self._checkpoints.save(
            step, state, self._engine.save_model, self._write_more, self._write_training_state, protected=protected
        )
        self._saved_step = step
        self._reporter.plot()

    def _write_more(self, folder: Path) -> None:
        if self._engine.is_main:
            self._save_more(folder)

    def _write_training_state(self, folder: Path) -> None:
        write_training_state(self._engine, folder)
