"""The engine for a model that no single device holds: weights, gradients and optimiser state in shards (FSDP2), layers
cut by heads (tensor parallelism), or both.

A layer's weights are put together for the pass through it and let go after it, forward and backward; each backward pass
sums the gradients over all ranks and leaves every rank its part. Gradients are summed in every pass rather than in the
last one of a step, which would hold those of the whole model on every device until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
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
        """Give the processes of a rank the same gradients of what each has whole; each backward pass has summed them.

        Where a device sums in no fixed order they are the same only up to rounding, and the weights would part.
        """
        tp = next(
            (m["tp"] for p in self.adapter.model.parameters() if "tp" in (m := p.device_mesh).mesh_dim_names), None
        )
        if tp is None:
            return
        for parameter in self._parameters:
            if parameter.grad is not None and "tp" not in parameter.device_mesh.mesh_dim_names:
                dist.broadcast(parameter.grad.to_local(), group=tp.get_group(), group_src=0)

    def _unscale(self, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        super()._unscale(scaler, optimizer)
        for found in scaler._found_inf_per_device(optimizer).values():  # torch tells those with the first parameter
            dist.all_reduce(found, op=dist.ReduceOp.MAX)

    def _grad_norm(self) -> Tensor:
        norms: list[Any] = [
            nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            for parameters in self._by_mesh()
        ]
        return torch.linalg.vector_norm(torch.stack([norm.full_tensor() for norm in norms]))

    def _clip(self, norm: Tensor, max_norm: float) -> None:
        for parameters in self._by_mesh():
            nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)

    def _by_mesh(self) -> list[list[Any]]:
        """Return the parameters in groups that torch can compute with together: those cut by heads, and the others."""
        groups: dict[Any, list[Any]] = {}
        for parameter in self._parameters:
            groups.setdefault(parameter.device_mesh, []).append(parameter)
        return list(groups.values())

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
