"""The engine for a model that no single device holds: weights, gradients and optimiser state in shards (FSDP2).

A layer's weights are put together for the pass through it and let go after it, forward and backward; each backward pass
sums the gradients over all ranks and leaves every rank its part. Gradients are summed in every pass rather than in the
last one of a step, which would hold those of the whole model on every device until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from understudy.batching import StepPlan
from understudy.train.sharding import shard_like
from understudy.train.stats import LossSums

from .base import DataParallelEngine


class ShardedEngine(DataParallelEngine):
    """One model over all ranks; see `DataParallelEngine` for the arguments.

    Checkpoints are those of `LocalEngine`, so a run may go on with another number of processes, or without shards.
    """

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        state = super().state()
        if self.optimizer is not None:
            state["optimizer"]["state"] = {
                index: {name: self._gathered(value) for name, value in of_one.items()}
                for index, of_one in state["optimizer"]["state"].items()
            }
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine.load_state`."""
        if self.optimizer is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            optimizer = dict(state["optimizer"])
            optimizer["state"] = {
                index: {name: _part_of(value, parameters[index]) for name, value in of_one.items()}
                for index, of_one in optimizer["state"].items()
            }
            state = state | {"optimizer": optimizer}
        super().load_state(state)

    def save_model(self, folder: Path) -> None:
        """See `Engine.save_model`."""
        weights = self._saved_weights()
        if self.is_main:
            self.adapter.model.save_pretrained(folder, state_dict=weights, safe_serialization=True)

    def _run_plan(self, plan: StepPlan, factors: NDArray[np.float64], sums: LossSums, *, train: bool) -> None:
        own = [due for batch in plan.micro_batches for due in self._runner.passes(batch, train=train)]
        with self.adapter.passes_together(own):
            super()._run_plan(plan, factors, sums, train=train)

    def _share_weights(self) -> None:
        """Each rank got its part of the same weights."""

    def _finish_gradients(self) -> None:
        """Each backward pass has summed its gradients."""

    def _grad_norm(self) -> Tensor:
        norm: Any = super()._grad_norm()
        return norm.full_tensor()

    def _saved_weights(self) -> dict[str, Tensor]:
        """Return on the main rank what is saved: all weights, or those of an adapter and what may go with it."""
        model = self.adapter.model
        outer = {id(p) for p in self.adapter.outer_parameters()}
        is_adapter = model is not self.adapter.causal_lm
        whole: dict[int, Any] = {}  # tied weights are one tensor, which is how they are known when they are written
        weights = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            key = id(parameter)
            if key not in whole and (parameter.requires_grad or not is_adapter or key in outer):
                whole[key] = self._gathered(parameter.detach())
            if whole.get(key) is not None:
                weights[name] = whole[key]
        kept = model.state_dict().keys()
        return {name: tensor for name, tensor in (*weights.items(), *model.named_buffers()) if name in kept}

    def _gathered(self, value: Any) -> Any:
        """Return a sharded tensor as one in the CPU's memory of the main rank, and None on the others."""
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()
        return whole.cpu() if self.is_main else None


def _part_of(value: Any, parameter: Any) -> Any:
    """Return this rank's part of a moment of a parameter; what has another shape, such as a count, is whole."""
    return shard_like(value, parameter) if torch.is_tensor(value) and value.shape == parameter.shape else value
