"""Before training starts: do trees give this model, on this machine, the loss and gradients of separate rows?

A small forest is cut out of the user's own first step, with its real branches. It is run as the trainer would run it,
and again row by row with the model's own attention and logits and a loss that shares no code with ours. Training on a
difference would be training on something else, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from understudy.batching import Example, Forest, MicroBatch, concatenate, merge, separate_rows
from understudy.batching.chunks import cut, whole
from understudy.errors import TrainError

from .adapter import ModelAdapter
from .attention import Backend
from .runner import RowRunner, TreeRunner
from .stats import LossSums

# Relative differences that rounding alone explains. Models compute norms and softmax in float32 whatever their dtype.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_NUM_RUNS, _RUN_TOKENS = 12, 48


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What was compared. Differences are relative; that of the gradients is of all of them as one vector."""

    num_tokens: int
    num_rows: int
    loss_difference: float
    gradient_difference: float
    tolerance: float


def self_check(adapter: ModelAdapter, backend: Backend, forest: Forest) -> SelfCheck:
    """Compare trees with plain rows on a part of a forest; gradients are cleared before and after.

    Dropout and autocast are off while it runs, so that the comparison is as sharp as the weights allow.

    Raises:
        TrainError: losses or gradients differ by more than rounding.
    """
    sample = sample_of(forest, adapter.sliding_windows())
    small = merge([sample])
    rows = separate_rows(sample)
    factors = np.divide(1.0, small.weight_sums(), out=np.zeros(small.num_terms), where=small.weight_sums() > 0)
    with _quiet(adapter):
        expected, reference = _plain(adapter, rows, factors)
        sums = LossSums.zeros(small.num_terms, 1)
        batch = MicroBatch(small, tuple(cut(small, max(small.num_tokens // 3, 1))))
        TreeRunner(adapter, backend).run(batch, factors, sums, train=True)
        gradients = _take_gradients(adapter)
        tolerance = _tolerance(adapter, rows, factors, reference)
    loss = float((sums.nll.sum(1) * factors).sum())
    result = SelfCheck(
        num_tokens=small.num_tokens,
        num_rows=len(rows),
        loss_difference=abs(loss - expected) / max(abs(expected), 1e-12),
        gradient_difference=_difference(gradients, reference),
        tolerance=tolerance,
    )
    if not max(result.loss_difference, result.gradient_difference) <= tolerance:  # also true for nan
        raise TrainError(
            f"trees do not give this model the results of separate rows: on {small.num_tokens} tokens the loss differs "
            f"by {result.loss_difference:.1e} and the gradients by {result.gradient_difference:.1e} (relative; "
            f"{tolerance:.0e} is allowed). Train with layout: rows, and please report the architecture"
        )
    return result


def check_losses(adapter: ModelAdapter, backend: Backend, example: Example) -> float:
    """Compare the loss of a part of an example as a tree and as plain rows; return the relative difference.

    For a model that is only measured: no gradients are made.

    Raises:
        TrainError: they differ by more than rounding.
    """
    sample = sample_of(merge([example]), adapter.sliding_windows())
    small, rows = merge([sample]), concatenate(separate_rows(sample))
    trees = MicroBatch(small, tuple(cut(small, max(small.num_tokens // 3, 1))))
    found, expected = (LossSums.zeros(small.num_terms, 1) for _ in range(2))
    factors = np.zeros(small.num_terms)
    with _quiet(adapter):
        TreeRunner(adapter, backend).run(trees, factors, found, train=False)
        RowRunner(adapter).run(MicroBatch(rows, tuple(whole(rows))), factors, expected, train=False)
    difference = float(np.abs(found.nll - expected.nll).sum() / max(np.abs(expected.nll).sum(), 1e-12))
    if not difference <= _TOLERANCE.get(adapter.head.weight.dtype, 1e-4):
        raise TrainError(
            f"trees do not give this model the loss of separate rows: on {small.num_tokens} tokens it differs by "
            f"{difference:.1e} (relative). Please report the architecture"
        )
    return difference


def sample_of(forest: Forest, windows: list[int]) -> Example:
    """Return a small part of a forest: its uppermost runs, each cut to its last tokens, with all their targets.

    Where the data is deeper than a sliding window, runs are long enough to leave it.
    """
    whole = forest.as_example("self check")
    run_tokens, num_runs = _RUN_TOKENS, _NUM_RUNS
    reached = [window for window in windows if window <= int(forest.depth.max())]
    if reached:
        run_tokens, num_runs = max(reached) + _RUN_TOKENS, 4
    chosen = _uppermost_runs(whole, num_runs)
    runs = whole.runs()
    kept = [np.arange(max(runs[run][0], runs[run][1] - run_tokens), runs[run][1]) for run in chosen]
    tokens = np.concatenate(kept)
    renumbered = np.full(whole.num_tokens, -1, np.int32)
    renumbered[tokens] = np.arange(len(tokens), dtype=np.int32)
    number = {run: n for n, run in enumerate(chosen)}
    targets = renumbered[whole.position] >= 0
    return replace(
        whole,
        ids=whole.ids[tokens],
        run_start=np.cumsum([0, *(len(part) for part in kept[:-1])]).astype(np.int32),
        run_parent=np.array([number.get(runs[run][2], -1) for run in chosen], np.int32),
        position=renumbered[whole.position[targets]],
        label=whole.label[targets],
        weights=whole.weights[:, targets],
    )


def _uppermost_runs(example: Example, num_runs: int) -> list[int]:
    """Return the first runs level by level, together with what leads to a target, in depth-first order."""
    runs = example.runs()
    level = np.zeros(len(runs), np.int64)
    for run, (_, _, parent) in enumerate(runs):
        level[run] = level[parent] + 1 if parent >= 0 else 0
    chosen = set(np.argsort(level, kind="stable")[:num_runs].tolist())
    # The upper runs of a tree may hold no target (a long system prompt): add the first that does, and its ancestors.
    run = int(np.searchsorted(example.run_start, example.position.min(), side="right")) - 1
    while run >= 0:
        chosen.add(run)
        run = runs[run][2]
    return sorted(chosen)


def _plain(adapter: ModelAdapter, rows: list[Example], factors: np.ndarray) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of separate rows and its gradients, from the model's own logits."""
    total = 0.0
    for row in rows:
        weight = torch.from_numpy((row.weights * factors[:, None]).sum(0)).to(adapter.device)
        if not len(weight):
            continue
        loss = adapter.run(partial(_row_loss, adapter, row, weight))
        loss.backward()
        total += float(loss.detach())
    return total, _take_gradients(adapter)


def _row_loss(adapter: ModelAdapter, row: Example, weight: Tensor) -> Tensor:
    """Return the loss of a row's targets, which have these weights."""
    logits = adapter.row_logits(torch.from_numpy(row.ids).long().to(adapter.device))
    position, label = (torch.from_numpy(array).long().to(adapter.device) for array in (row.position, row.label))
    logits = logits[position].to(torch.promote_types(logits.dtype, torch.float32))
    return (torch.nn.functional.cross_entropy(logits, label, reduction="none") * weight).sum()


def _tolerance(adapter: ModelAdapter, rows: list[Example], factors: np.ndarray, reference: dict[str, Tensor]) -> float:
    """Return the relative difference to allow: in half precision at least what two plain attentions differ by.

    The coarsest weights decide: adapters are held in float32 on a base in bfloat16, which computes in bfloat16.
    """
    dtypes = {parameter.dtype for parameter in adapter.model.parameters()}
    if adapter.lockstep is not None and adapter.lockstep.autocast_dtype is not None:
        dtypes.add(adapter.lockstep.autocast_dtype)
    allowed = max((_TOLERANCE[dtype] for dtype in dtypes if dtype in _TOLERANCE), default=1e-4)
    if dtypes & {torch.float16, torch.bfloat16}:
        with adapter.attention("eager"):
            _, again = _plain(adapter, rows, factors)
        allowed = max(allowed, 4 * _difference(again, reference))
    return allowed


def _take_gradients(adapter: ModelAdapter) -> dict[str, Tensor]:
    """Return the gradients of all parameters and clear them."""
    taken = {name: p.grad for name, p in adapter.model.named_parameters() if p.grad is not None}
    adapter.model.zero_grad(set_to_none=True)
    return taken


def _difference(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """Return |found - reference| / |reference|, all parameters as one vector."""
    error = size = 0.0
    for name in sorted(found.keys() | reference.keys()):
        a, b = found.get(name), reference.get(name)
        size += 0.0 if b is None else _square_sum(b.double())
        if a is not None and b is not None:
            error += _square_sum(a.double() - b.double())
        else:
            error += _square_sum((b if a is None else a).double())  # type: ignore[union-attr]
    return (error / size) ** 0.5 if size else float("inf") if error else 0.0


def _square_sum(tensor: Tensor) -> float:
    total = tensor.square().sum()
    return float(total.full_tensor() if isinstance(total, DTensor) else total)


@contextmanager
def _quiet(adapter: ModelAdapter) -> Iterator[None]:
    """Turn dropout off and leave no gradients behind."""
    training = adapter.model.training
    adapter.model.eval()
    adapter.model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        adapter.model.train(training)
        adapter.model.zero_grad(set_to_none=True)
