"""Run micro-batches through a model: forward, loss and backward, chunk by chunk.

`TreeRunner` computes chunks depth first. A chunk's keys and values are handed to the chunks below as fresh leaves of
the autograd graph; when all of them have run backward, the gradients that gathered there flow on through the chunk
itself. The result is the exact gradient of the whole forest, while only the chunks of one path are held.

`RowRunner` gives architectures that cannot take a tree one plain row at a time, with their own attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.batching import Chunk, Forest, MicroBatch, Slice, schedule

from .adapter import ChunkAttention, KeysAndValues, ModelAdapter
from .attention import AttentionLayout, Backend
from .lockstep import Pass
from .loss import cross_entropy, no_loss
from .offloading import ActivationOffloading
from .stats import LossSums

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


class Runner(Protocol):
    """Runs micro-batches through a model."""

    def run(self, batch: MicroBatch, factors: Doubles, sums: LossSums, *, train: bool) -> None:
        """Add a micro-batch's measurements to `sums` and, when training, its gradients to the parameters'.

        Args:
            factors: [terms] what a unit of weight of each term adds to the loss: coefficient / weight sum of the step.
        """

    def passes(self, batch: MicroBatch, *, train: bool) -> list[Pass]:
        """Return the passes through a sharded model that `run` makes, in their order."""


@dataclass(slots=True)
class _Held:
    """What is held of a chunk between its forward and its backward pass.

    Args:
        outputs: each attention layer's keys and values, within the graph; empty when the chunk is to be recomputed.
        leaves: the same values as leaves, which the chunks below use and leave their gradients on.
        loss: the chunk's own loss, None when it predicts nothing or is to be recomputed.
    """

    outputs: KeysAndValues
    leaves: KeysAndValues
    loss: Tensor | None
    random_state: dict[str, Tensor]


class _Measured:
    """Each target's nll and whether it was right, gathered on the device and read once for each micro-batch."""

    def __init__(self, forest: Forest, factors: Doubles) -> None:
        targets = forest.targets
        shares = targets.entry_weight * factors[targets.entry_term]
        self.weight = np.bincount(targets.entry_target, weights=shares, minlength=len(targets.position))
        self._forest = forest
        self._parts: list[tuple[Indices, Tensor, Tensor]] = []

    def record(self, targets: Indices, nll: Tensor, correct: Tensor) -> None:
        self._parts.append((targets, nll, correct))

    def add_to(self, sums: LossSums) -> None:
        forest = self._forest
        nll = np.full(len(self.weight), np.nan)
        correct = np.zeros(len(self.weight), bool)
        for targets, part, right in self._parts:
            nll[targets], correct[targets] = part.double().cpu().numpy(), right.cpu().numpy()
        sums.add(forest.targets, forest.sources, nll, correct)
        sums.num_tokens += forest.num_tokens
        sums.num_row_tokens += forest.num_row_tokens
        bad = ~np.isfinite(nll[forest.targets.entry_target])
        sums.bad_names += [forest.names[example] for example in np.unique(forest.targets.entry_example[bad])]


class TreeRunner:
    """Compute chunks depth first; see the module's docstring.

    Args:
        adapter: the model.
        backend: computes attention.
        autocast_dtype: dtype of autocast; None for none.
        offloading: brings activations to the CPU's memory; None leaves them where they are.
        max_held_stems: how many stems of a path keep their activations until their backward pass. Those below run
            forward a second time instead and keep only keys and values, so memory does not grow with the length of a
            path. None do in a sharded model, whose backward passes must follow their forward passes.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        backend: Backend,
        *,
        autocast_dtype: torch.dtype | None = None,
        offloading: ActivationOffloading | None = None,
        max_held_stems: int = 2,
    ) -> None:
        self._adapter = adapter
        self._backend = backend
        self._autocast_dtype = autocast_dtype
        self._offloading = offloading
        self._max_held_stems = max_held_stems if adapter.lockstep is None else 0

    def run(self, batch: MicroBatch, factors: Doubles, sums: LossSums, *, train: bool) -> None:
        """See `Runner.run`."""
        measured = _Measured(batch.forest, factors)
        held: dict[int, _Held] = {}
        with self._adapter.attention():
            for step in schedule(batch.chunks):
                chunk = batch.chunks[step.chunk]
                if step.what == "forward":
                    held[step.chunk] = self._forward(batch.forest, chunk, held, measured, train=train)
                elif train:
                    self._backward(batch.forest, chunk, held.pop(step.chunk), held, measured)
                else:
                    del held[step.chunk]
        measured.add_to(sums)

    def passes(self, batch: MicroBatch, *, train: bool) -> list[Pass]:
        """See `Runner.passes`."""
        out = []
        for step in schedule(batch.chunks):
            is_stem = batch.chunks[step.chunk].has_children
            if step.what == "forward":
                out.append(Pass.FORWARD if is_stem or not train else Pass.FORWARD_BACKWARD)
            elif is_stem and train:
                out.append(Pass.FORWARD_BACKWARD)
        return out

    def _forward(
        self, forest: Forest, chunk: Chunk, held: dict[int, _Held], measured: _Measured, *, train: bool
    ) -> _Held:
        random_state = _random_state(self._adapter.device) if train else {}
        postponed = train and chunk.has_children and len(chunk.path) >= self._max_held_stems
        with torch.set_grad_enabled(train and not postponed):
            outputs, loss = self._compute(forest, chunk, held, measured, with_loss=not postponed)
        leaves = {
            layer: tuple(
                tensor.detach().requires_grad_(train and (postponed or tensor.requires_grad)) for tensor in pair
            )
            for layer, pair in outputs.items()
        }
        return _Held({} if postponed else outputs, leaves, loss, random_state)

    def _backward(self, forest: Forest, chunk: Chunk, own: _Held, held: dict[int, _Held], measured: _Measured) -> None:
        outputs, loss = own.outputs, own.loss
        if chunk.has_children and not outputs:
            with _replayed(own.random_state, self._adapter.device):
                outputs, loss = self._compute(forest, chunk, held, measured, with_loss=True)
        tensors, grads = ([loss], [torch.ones_like(loss)]) if loss is not None and loss.requires_grad else ([], [])
        for layer, pair in outputs.items():
            for tensor, leaf in zip(pair, own.leaves[layer], strict=True):
                if leaf.grad is not None and tensor.requires_grad:
                    tensors.append(tensor)
                    grads.append(leaf.grad)
        if tensors:
            torch.autograd.backward(tensors, grads)

    def _compute(
        self, forest: Forest, chunk: Chunk, held: dict[int, _Held], measured: _Measured, *, with_loss: bool
    ) -> tuple[KeysAndValues, Tensor | None]:
        """Run a chunk forward; return its attention layers' keys and values and its loss."""
        attention = ChunkAttention(
            layout=AttentionLayout.of(forest, chunk),
            backend=self._backend,
            past=[(held[part.chunk].leaves, part.start, part.stop) for part in chunk.path],
            kept={} if chunk.has_children else None,
        )
        device = self._adapter.device
        ids, positions = (
            torch.from_numpy(np.concatenate([array[part.start : part.stop] for part in chunk.slices])).long().to(device)
            for array in (forest.ids, forest.depth)
        )

        def compute() -> Tensor | None:
            hidden = self._adapter.tree_hidden(ids, positions, attention)
            return _loss(self._adapter, hidden, forest, chunk.slices, measured) if with_loss else None

        with _autocast(device, self._autocast_dtype), self._offloading or nullcontext():
            loss = self._adapter.run(compute)
        outputs = attention.kept or {}
        attention.kept = None  # a recomputation of a layer by gradient checkpointing must not add to it
        return outputs, loss


class RowRunner:
    """Compute rows one by one with the model's own attention. The forest must be separate rows.

    Args:
        adapter: the model.
        autocast_dtype: dtype of autocast; None for none.
        offloading: brings activations to the CPU's memory; None leaves them where they are.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        *,
        autocast_dtype: torch.dtype | None = None,
        offloading: ActivationOffloading | None = None,
    ) -> None:
        self._adapter = adapter
        self._autocast_dtype = autocast_dtype
        self._offloading = offloading

    def run(self, batch: MicroBatch, factors: Doubles, sums: LossSums, *, train: bool) -> None:
        """See `Runner.run`."""
        measured = _Measured(batch.forest, factors)
        for chunk in batch.chunks:
            for part in chunk.slices:
                with torch.set_grad_enabled(train):
                    loss = self._compute(batch.forest, part, measured)
                if train and loss is not None and loss.requires_grad:
                    loss.backward()
        measured.add_to(sums)

    def passes(self, batch: MicroBatch, *, train: bool) -> list[Pass]:
        """See `Runner.passes`."""
        num_rows = sum(len(chunk.slices) for chunk in batch.chunks)
        return [Pass.FORWARD_BACKWARD if train else Pass.FORWARD] * num_rows

    def _compute(self, forest: Forest, row: Slice, measured: _Measured) -> Tensor | None:
        """Run a row forward; return its loss."""
        device = self._adapter.device
        ids = torch.from_numpy(forest.ids[row.start : row.stop]).long().to(device)
        with _autocast(device, self._autocast_dtype), self._offloading or nullcontext():
            return self._adapter.run(
                lambda: _loss(self._adapter, self._adapter.row_hidden(ids), forest, (row,), measured)
            )


def _loss(
    adapter: ModelAdapter, hidden: Tensor, forest: Forest, slices: tuple[Slice, ...], measured: _Measured
) -> Tensor | None:
    """Return the loss of the slices' targets given their hidden states [T, D].

    When they predict nothing it is None, but zero in a sharded model, where no backward pass may be left out.
    """
    targets, local = _targets_of(forest, slices)
    if not len(targets):
        return None if adapter.lockstep is None else no_loss(hidden)
    positions, row = np.unique(local, return_inverse=True)
    at, rows, labels, weights = (
        torch.from_numpy(array).to(hidden.device)
        for array in (positions, row, forest.targets.label[targets].astype(np.int64), measured.weight[targets])
    )
    result = cross_entropy(hidden[at], adapter.head, rows, labels, weights, accumulate=True)
    measured.record(targets, result.nll.detach(), result.correct)
    return result.loss


def _targets_of(forest: Forest, slices: tuple[Slice, ...]) -> tuple[Indices, Indices]:
    """Return (targets, index of each target's position among the slices' tokens), both ascending."""
    targets, local = [], []
    offset = 0
    for part in slices:  # targets are sorted by position, so those of a slice are a slice
        first, last = np.searchsorted(forest.targets.position, [part.start, part.stop])
        targets.append(np.arange(first, last))
        local.append(forest.targets.position[first:last].astype(np.int64) - part.start + offset)
        offset += part.num_tokens
    return np.concatenate(targets), np.concatenate(local)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


@contextmanager
def _replayed(states: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """Run the block with the random numbers of an earlier moment, then go on with those of now."""
    with torch.random.fork_rng(devices=[device] if "cuda" in states else []):
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
        yield
