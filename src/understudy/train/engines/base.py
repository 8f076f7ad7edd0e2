"""What all engines do alike, wherever the weights lie: losses, the decision to take a step, optimiser and schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.batching import StepPlan
from understudy.errors import TrainError
from understudy.train.adapter import ModelAdapter
from understudy.train.distributed import gathered
from understudy.train.runner import Runner
from understudy.train.stats import LossSums, StepStats


class DataParallelEngine(ABC):
    """Every process computes a part of the step; see `Engine` for the methods.

    Args:
        adapter: the model, already on its device, in train mode and with the right parameters trainable.
        runner: runs its micro-batches.
        coefficients: the objective's, term by term.
        source_names: names of the data sources, in the plan's order.
        optimizer: None for evaluation only.
        scheduler: stepped with the optimiser.
        max_grad_norm: gradients are scaled down to this norm; None or 0 for no clipping.
        scaler: scales the loss under fp16; None for none.
        tp_size: how many processes, neighbours, are one rank: they have the same data and compute parts of each layer.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        runner: Runner,
        *,
        coefficients: Mapping[str, float],
        source_names: Sequence[str] = ("data",),
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        max_grad_norm: float | None = 1.0,
        scaler: torch.amp.GradScaler | None = None,
        tp_size: int = 1,
    ) -> None:
        self.adapter = adapter
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.distributed = dist.is_available() and dist.is_initialized()
        process = dist.get_rank() if self.distributed else 0
        self.rank = process // tp_size
        self.world_size = dist.get_world_size() // tp_size if self.distributed else 1
        self.is_first = process % tp_size == 0
        self.is_main = self.rank == 0 and self.is_first
        self._runner = runner
        self._coefficients = dict(coefficients)
        self._source_names = tuple(source_names)
        self._max_grad_norm = max_grad_norm
        self._scaler = scaler
        self._parameters = [p for p in adapter.model.parameters() if p.requires_grad]
        self._share_weights()

    def global_weight_sums(self, plan: StepPlan) -> NDArray[np.float64]:
        """See `Engine.global_weight_sums`."""
        return self._summed(plan.weight_sums)

    def forward_backward(self, plan: StepPlan, totals: NDArray[np.float64]) -> StepStats:
        """See `Engine.forward_backward`."""
        factors = np.divide(list(self._coefficients.values()), totals, out=np.zeros(len(totals)), where=totals > 0)
        if self._scaler is not None:
            factors *= self._scaler.scale(torch.ones((), device=self.adapter.device)).item()
        self.adapter.model.train()
        sums = self._run([plan], factors, self._source_names, train=True)
        self._finish_gradients()
        return self._stats(sums, self._source_names)

    def optimizer_step(self, stats: StepStats) -> None:
        """See `Engine.optimizer_step`."""
        if self.optimizer is None:
            raise TrainError("this engine has no optimiser: it can only evaluate")
        if not np.isfinite(stats.loss):
            self._refuse(f"the loss is {stats.loss}", stats.bad_names)
        if self._scaler is not None:
            self._unscale(self._scaler, self.optimizer)
        norm = self._grad_norm()
        self._clip(norm, self._max_grad_norm or float("inf"))
        stats.grad_norm = float(norm)
        if self._scaler is not None:
            scale = self._scaler.get_scale()
            self._scaler.step(self.optimizer)
            self._scaler.update()
            stats.skipped = not np.isfinite(stats.grad_norm)
            if stats.skipped and scale < 1:
                self._refuse(f"the gradients overflow fp16 even with a loss scale of {scale}", stats.bad_names)
        elif not np.isfinite(stats.grad_norm):
            self._refuse(f"the gradient norm is {stats.grad_norm}", stats.bad_names)
        else:
            self.optimizer.step()
        if self.scheduler is not None and not stats.skipped:
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)

    def evaluate(self, plans: Iterable[StepPlan], source_names: Sequence[str] | None = None) -> StepStats:
        """See `Engine.evaluate`."""
        names = self._source_names if source_names is None else source_names
        self.adapter.model.eval()
        sums = self._run(plans, np.zeros(len(self._coefficients)), names, train=False)
        self.adapter.model.train()
        return self._stats(sums, names)

    def learning_rate(self) -> float:
        """See `Engine.learning_rate`."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer is not None else 0.0

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self._scaler}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Engine.load_state`."""
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self._scaler}
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        if isinstance(self.scheduler, torch.optim.lr_scheduler.LambdaLR) and self.optimizer is not None:
            # The saved rate is that of the saved run's schedule; this run's may be longer.
            schedule = zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
            for group, highest, factor in schedule:
                group["lr"] = highest * factor(self.scheduler.last_epoch)

    @abstractmethod
    def _share_weights(self) -> None:
        """Start all ranks from the same weights."""

    @abstractmethod
    def save_model(self, folder: Path) -> None:
        """See `Engine.save_model`."""

    def _run(
        self, plans: Iterable[StepPlan], factors: NDArray[np.float64], source_names: Sequence[str], *, train: bool
    ) -> LossSums:
        sums = LossSums.zeros(len(self._coefficients), len(source_names))
        for plan in plans:
            self._run_plan(plan, factors, sums, train=train)
        return sums

    def _run_plan(self, plan: StepPlan, factors: NDArray[np.float64], sums: LossSums, *, train: bool) -> None:
        for batch in plan.micro_batches:
            self._runner.run(batch, factors, sums, train=train)

    @abstractmethod
    def _finish_gradients(self) -> None:
        """Make the gradients those of the whole step, after the last of this rank's passes."""

    def _unscale(self, scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
        """Take the loss scale out of the gradients, and find out on all ranks whether any overflowed."""
        scaler.unscale_(optimizer)

    def _grad_norm(self) -> Tensor:
        """Return the norm of all gradients as one vector."""
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _clip(self, norm: Tensor, max_norm: float) -> None:
        """Scale all gradients down to a norm, given what it is."""
        nn.utils.clip_grads_with_norm_(self._parameters, max_norm, norm)

    def _stats(self, sums: LossSums, source_names: Sequence[str]) -> StepStats:
        sums.unpack(self._summed(sums.packed()))
        return StepStats.of(sums, self._coefficients, source_names)

    def _refuse(self, what: str, names: list[str]) -> None:
        """Raise for a step that must not be taken, naming the examples at fault, on all ranks."""
        names = sorted({name for part in gathered(names) for name in part})
        named = f"; examples with a loss that is not finite: {', '.join(names)}" if names else ""
        raise TrainError(f"{what}, so the step was not taken{named}")

    def _summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of `values` over all ranks, to which the first process of each adds."""
        if not self.distributed:
            return values
        own = values if self.is_first else np.zeros_like(values)
        tensor = torch.from_numpy(own.copy()).to(self.adapter.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()
