"""The engine for a model that fits one device: one process, or several that each hold a copy (DDP).

Copies are kept equal by summing gradients explicitly when the last micro-batch is done. The step's denominators are
global, so the sum is already the gradient of the whole step, whatever each rank computed and in how many backward
passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from .base import DataParallelEngine

_BUCKET_BYTES = 64 * 2**20


class LocalEngine(DataParallelEngine):
    """One copy of the model on one device; see `DataParallelEngine` for the arguments."""

    def save_model(self, folder: Path) -> None:
        """See `Engine.save_model`."""
        if self.is_main:
            self.adapter.model.save_pretrained(folder, safe_serialization=True)

    def _finish_gradients(self) -> None:
        """Sum the gradients over all ranks. A parameter that a rank did not use has a gradient of zero there."""
        if not self.distributed:
            return
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in self._parameters if p.grad is not None]):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            dist.all_reduce(flat)
            for grad, part in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(part.view_as(grad))

    def _share_weights(self) -> None:
        """Start every rank from rank 0's values."""
        if not self.distributed:
            return
        with torch.no_grad():
            for tensor in (*self.adapter.model.parameters(), *self.adapter.model.buffers()):
                dist.broadcast(tensor, src=0)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one dtype in groups of about the bucket size; one all-reduce for each."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        size = 0
        for tensor in (t for t in tensors if t.dtype == dtype):
            bucket.append(tensor)
            size += tensor.nbytes
            if size >= _BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
        if bucket:
            yield bucket
