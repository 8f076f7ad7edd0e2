"""Cross entropy at supervised positions only, with the gradients made in the same pass.

Full logits never exist: rows are taken a few at a time, and each row's logits become its gradient in place before the
next rows are computed. One row of logits serves all labels of its position. The sums are weighted and already divided
by the step's global weight sums, so micro-batches and ranks simply add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_BYTES = 64 * 2**20
"""Upper bound of the logits held at a time, in bytes."""


@dataclass(frozen=True, slots=True)
class Head:
    """How hidden states become logits: ``softcap(scale * (hidden @ weight.T + bias))``.

    Args:
        weight: [V, D].
        bias: [V] or None.
        scale: factor of the logits.
        softcap: logits z become ``softcap * tanh(z / softcap)``; None for no cap.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return [rows, V] the logits of hidden states [rows, D], in at least float32."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = F.linear(hidden, self.weight.to(hidden.dtype), bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class CrossEntropy(NamedTuple):
    """The result of `cross_entropy`.

    Args:
        loss: scalar, sum of weight times nll. The only part with a gradient.
        nll: [N] negative log-likelihood of each target.
        correct: [N] whether the label has the largest logit.
    """

    loss: Tensor
    nll: Tensor
    correct: Tensor


def cross_entropy(hidden: Tensor, head: Head, row: Tensor, label: Tensor, weight: Tensor) -> CrossEntropy:
    """Return the weighted cross entropy of N targets at U positions.

    The gradient assumes that the loss is backpropagated with a factor of 1, or a factor that it then applies.

    Args:
        hidden: [U, D] hidden states of the supervised positions.
        head: makes logits of them.
        row: [N] which position each target belongs to, ascending.
        label: [N] token ids.
        weight: [N] float64, each target's share of the loss.
    """
    return CrossEntropy(*_FusedCrossEntropy.apply(hidden, head.weight, head.bias, head, row, label, weight))


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        head_bias: Tensor | None,
        head: Head,
        row: Tensor,
        label: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device_type = hidden.device.type
        dtype = hidden.dtype
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        sums = torch.promote_types(dtype, torch.float32)
        hidden_grad, weight_grad, bias_grad = (bool(need) for need in ctx.needs_input_grad[:3])
        with torch.autocast(device_type, enabled=False):
            inputs, matrix = hidden.detach().to(dtype), head_weight.detach().to(dtype)
            bias = None if head_bias is None else head_bias.detach().to(dtype)
            weight = weight.to(sums)
            nll = torch.empty(len(row), dtype=sums, device=hidden.device)
            correct = torch.empty(len(row), dtype=torch.bool, device=hidden.device)
            grad_hidden = torch.empty(hidden.shape, dtype=dtype, device=hidden.device) if hidden_grad else None
            grad_weight = torch.zeros(head_weight.shape, dtype=sums, device=hidden.device) if weight_grad else None
            grad_bias = torch.zeros(head_weight.shape[0], dtype=sums, device=hidden.device) if bias_grad else None
            for rows, targets in _blocks(len(hidden), row, head_weight.shape[0] * sums.itemsize):
                at = (row[targets] - rows.start, label[targets])
                probabilities, slope, nll[targets], correct[targets] = _softmax(
                    F.linear(inputs[rows], matrix, bias), head, at, sums, keep_slope=hidden_grad or weight_grad
                )
                if not (hidden_grad or weight_grad or bias_grad):
                    continue
                row_weight = weight.new_zeros(rows.stop - rows.start).index_add_(0, at[0], weight[targets])
                grad = probabilities.mul_(row_weight[:, None])
                grad.index_put_(at, -weight[targets], accumulate=True)
                if slope is not None:
                    grad.mul_(slope)
                if head.scale != 1.0:
                    grad.mul_(head.scale)
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
                low = grad.to(dtype)
                if grad_hidden is not None:
                    torch.mm(low, matrix, out=grad_hidden[rows])
                if grad_weight is not None:
                    _add_product(grad_weight, low, inputs[rows])
        loss = (weight * nll).sum()
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden.dtype, head_weight.dtype, None if head_bias is None else head_bias.dtype)
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        factor = float(grad_loss)
        grads = []
        for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True):
            if grad is not None and factor != 1.0:
                grad = grad * factor
            grads.append(None if grad is None else grad.to(dtype))
        return (*grads, None, None, None, None)


def _blocks(num_rows: int, row: Tensor, row_bytes: int) -> list[tuple[slice, slice]]:
    """Return (rows, targets) of each block of rows whose logits fit the bound."""
    per_block = max(LOGITS_BYTES // row_bytes, 1)
    edges = [*range(0, num_rows, per_block), num_rows]
    at = torch.searchsorted(row, torch.tensor(edges, device=row.device)).tolist()
    return [(slice(edges[n], edges[n + 1]), slice(at[n], at[n + 1])) for n in range(len(edges) - 1)]


def _softmax(
    raw: Tensor, head: Head, at: tuple[Tensor, Tensor], dtype: torch.dtype, *, keep_slope: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return (probabilities, slope of the softcap, nll, correct) from the matrix product; works in place."""
    logits = raw.to(dtype)
    if head.scale != 1.0:
        logits.mul_(head.scale)
    slope = None
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_()
        if keep_slope:
            slope = 1 - logits.square()
        logits.mul_(head.softcap)
    chosen = logits[at]
    largest = logits.amax(1, keepdim=True)
    correct = chosen >= largest[at[0], 0]
    exponentials = logits.sub_(largest).exp_()
    total = exponentials.sum(1, keepdim=True)
    log_total = (largest + total.log()).squeeze(1)
    return exponentials.div_(total), slope, log_total[at[0]] - chosen, correct


def _add_product(total: Tensor, grad: Tensor, inputs: Tensor) -> None:
    """Add ``grad.T @ inputs`` to `total`, which may be of a higher precision."""
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), inputs)
    else:
        total.add_(grad.t() @ inputs)
