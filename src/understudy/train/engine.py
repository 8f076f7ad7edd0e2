"""The engine: everything about a step that depends on how the model is spread over devices.

The trainer's loop knows only this interface, so one loop serves one process, DDP and whatever shards the model::

    for plan in steps:
        totals = engine.global_weight_sums(plan)  # one all-reduce, before any backward
        stats = engine.forward_backward(plan, totals)
        engine.optimizer_step(stats)  # raises first if anything is not finite

Every rank calls every method in the same order, also a rank whose plan is empty. What is returned is the same on all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.batching import StepPlan

from .stats import StepStats


class Engine(Protocol):
    """Computes steps and holds the model, the optimiser and their state.

    Attributes:
        rank, world_size: this process among those that share the data. Processes that share one model's layers or heads
            (tensor, pipeline parallel) have the same rank here.
        is_first: whether this process is the first of those with its rank.
        is_main: whether this process writes what only one may write.
    """

    rank: int
    world_size: int
    is_first: bool
    is_main: bool

    def global_weight_sums(self, plan: StepPlan) -> NDArray[np.float64]:
        """Return [terms] the sums of absolute weights of the step over all ranks: the denominators of the loss."""

    def forward_backward(self, plan: StepPlan, totals: NDArray[np.float64]) -> StepStats:
        """Run the step's micro-batches; afterwards every rank holds the gradients of the whole step."""

    def optimizer_step(self, stats: StepStats) -> None:
        """Clip, update, step the schedule and clear the gradients; set `stats.grad_norm`.

        Raises:
            TrainError: the loss or the gradients are not finite. Nothing has been updated then.
        """

    def evaluate(self, plans: Iterable[StepPlan], source_names: Sequence[str] | None = None) -> StepStats:
        """Return the loss over all plans together, without gradients.

        Args:
            source_names: names of the plans' data sources, in their order; None for those that are trained on.
        """

    def learning_rate(self) -> float:
        """Return the learning rate that the next step uses."""

    def state(self) -> dict[str, Any]:
        """Return the state of optimiser, schedule and loss scale, whole on the main rank; every rank calls it."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` returned on the main rank of any engine; it is whole on every rank."""

    def save_model(self, folder: Path) -> None:
        """Write the weights, or the adapter, in Hugging Face layout as safetensors; every rank calls it."""
