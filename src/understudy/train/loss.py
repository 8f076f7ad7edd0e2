"""Cross entropy at supervised positions only, with the gradients made in the same pass.

Full logits never exist: rows are taken a few at a time, and each row's logits become its gradient in place before the
next rows are computed. One row of logits serves all labels of its position. The sums are weighted and already divided
by the step's global weight sums, so micro-batches and ranks simply add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_BYTES = 128 * 2**20
"""Upper bound of the logits held at a time, in bytes of their float32 or float64 copy."""


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


def cross_entropy(
    hidden: Tensor, head: Head, row: Tensor, label: Tensor, weight: Tensor, *, accumulate: bool = False
) -> CrossEntropy:
    """Return the weighted cross entropy of N targets at U positions.

    The gradient assumes that the loss is backpropagated with a factor of 1, or a factor that it then applies.

    With `accumulate` the head's own gradients are added to its parameters' ``grad`` at once, and the backward pass,
    which must follow with a factor of 1, brings only those of the hidden states. Else each loss that waits for its
    backward pass holds a matrix as large as the head, and each pass allocates, sums and frees some. Parameters whose
    ``grad`` is coarser than the sums here are left to the backward pass.

    Args:
        hidden: [U, D] hidden states of the supervised positions.
        head: makes logits of them.
        row: [N] which position each target belongs to, ascending.
        label: [N] token ids.
        weight: [N] float64, each target's share of the loss.
        accumulate: see above.
    """
    sums = torch.promote_types(_compute_dtype(hidden), torch.float32)
    parameters = (head.weight, head.bias)
    into = tuple(_grad_of(p, sums) if accumulate and torch.is_grad_enabled() else None for p in parameters)
    given = tuple(p if p is None or grad is None else p.detach() for p, grad in zip(parameters, into, strict=True))
    return CrossEntropy(*_FusedCrossEntropy.apply(hidden, *given, head, into, row, label, weight))


def no_loss(hidden: Tensor) -> Tensor:
    """Return a loss of zero whose backward pass goes through everything that made the hidden states."""
    return 0.0 * hidden.sum()


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """Return the dtype of the matrix products."""
    device_type = hidden.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else hidden.dtype


def _grad_of(parameter: Tensor | None, sums: torch.dtype) -> Tensor | None:
    """Return the parameter's ``grad``, zeros where it has none yet; None where sums cannot be added to it directly."""
    if parameter is None or type(parameter) is not torch.nn.Parameter:  # shards are of types of their own
        return None
    if not parameter.requires_grad or parameter.dtype != sums:
        return None
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        head_bias: Tensor | None,
        head: Head,
        into: tuple[Tensor | None, Tensor | None],
        row: Tensor,
        label: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = _compute_dtype(hidden)
        needs = ctx.needs_input_grad[:3]
        with torch.autocast(hidden.device.type, enabled=False):
            blocks = _Blocks(hidden, head, dtype, needs, into)
            weight = weight.to(blocks.sums)
            nll = hidden.new_empty(len(row), dtype=blocks.sums)
            correct = hidden.new_empty(len(row), dtype=torch.bool)
            for rows, targets in blocks.split(row):
                at = (row[targets] - rows.start, label[targets])
                nll[targets], correct[targets] = blocks.compute(rows, at, weight[targets])
        ctx.save_for_backward(*(grad if need else None for grad, need in zip(blocks.gradients, needs, strict=True)))
        ctx.dtypes = (hidden.dtype, head_weight.dtype, None if head_bias is None else head_bias.dtype)
        ctx.mark_non_differentiable(nll, correct)
        return (weight * nll).sum(), nll, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        factor = float(grad_loss)
        grads = []
        for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True):
            if grad is not None and factor != 1.0:
                grad = grad * factor
            grads.append(None if grad is None else grad.to(dtype))
        return (*grads, None, None, None, None, None)


class _Blocks:
    """Logits and gradients of a few rows at a time, in buffers that all blocks share.

    Args:
        hidden: [U, D] all rows.
        head: makes logits of them.
        dtype: of the matrix products. Softmax and sums are in at least float32.
        needs: whether the hidden states, the head's weight and its bias need a gradient of their own.
        into: what the gradients of weight and bias are added to instead.
    """

    def __init__(
        self,
        hidden: Tensor,
        head: Head,
        dtype: torch.dtype,
        needs: tuple[bool, ...],
        into: tuple[Tensor | None, Tensor | None],
    ) -> None:
        self._head = head
        self._inputs, self._matrix = hidden.detach().to(dtype), head.weight.detach().to(dtype)
        self._bias = None if head.bias is None else head.bias.detach().to(dtype)
        self.sums = torch.promote_types(dtype, torch.float32)
        vocab_size = len(self._matrix)
        self._num_rows = min(max(LOGITS_BYTES // (vocab_size * self.sums.itemsize), 1), len(hidden))
        self._products = hidden.new_empty(self._num_rows, vocab_size, dtype=dtype)
        self._logits = self._products
        if dtype != self.sums:
            self._logits = torch.empty_like(self._products, dtype=self.sums)
        need_hidden, need_weight, need_bias = needs
        self._grad_hidden = torch.empty_like(self._inputs) if need_hidden else None
        self._grad_weight, self._grad_bias = into
        if need_weight:
            self._grad_weight = torch.zeros_like(self._matrix, dtype=self.sums)
        if need_bias:
            self._grad_bias = hidden.new_zeros(vocab_size, dtype=self.sums)
        has_products = self._grad_weight is not None and dtype != self.sums
        self._grad_product = torch.empty_like(self._matrix) if has_products else None

    @property
    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of hidden states, weight and bias; None where none is needed."""
        return self._grad_hidden, self._grad_weight, self._grad_bias

    def split(self, row: Tensor) -> list[tuple[slice, slice]]:
        """Return (rows, targets) of each block; `row` is the ascending row of each target."""
        edges = [*range(0, len(self._inputs), self._num_rows), len(self._inputs)]
        at = torch.searchsorted(row, torch.tensor(edges, device=row.device)).tolist()
        return [(slice(*rows), slice(*targets)) for rows, targets in zip(pairwise(edges), pairwise(at), strict=True)]

    def compute(self, rows: slice, at: tuple[Tensor, Tensor], weight: Tensor) -> tuple[Tensor, Tensor]:
        """Add a block's gradients; return (nll, correct) of its targets at (row in the block, label)."""
        num_rows = rows.stop - rows.start
        products, logits = self._products[:num_rows], self._logits[:num_rows]
        torch.mm(self._inputs[rows], self._matrix.t(), out=products)
        if self._bias is not None:
            products.add_(self._bias)
        if logits.dtype != products.dtype:
            logits.copy_(products)
        slope = self._transform(logits)
        chosen = logits[at]
        largest = logits.amax(1, keepdim=True)
        correct = chosen >= largest[at[0], 0]
        exponentials = logits.sub_(largest).exp_()
        total = exponentials.sum(1, keepdim=True)
        nll = (largest + total.log())[at[0], 0] - chosen
        if any(gradient is not None for gradient in self.gradients):
            row_weight = weight.new_zeros(num_rows).index_add_(0, at[0], weight)
            grad = exponentials.mul_(row_weight[:, None] / total)
            grad.index_put_(at, -weight, accumulate=True)
            self._add_gradients(rows, grad if slope is None else grad.mul_(slope))
        return nll, correct

    def _transform(self, logits: Tensor) -> Tensor | None:
        """Scale and cap logits in place; return what their gradients must be multiplied by, None for 1."""
        scale, softcap = self._head.scale, self._head.softcap
        if scale != 1.0:
            logits.mul_(scale)
        if softcap is None:
            return None if scale == 1.0 else logits.new_tensor(scale)
        logits.div_(softcap).tanh_()
        slope = (1 - logits.square()).mul_(scale)
        logits.mul_(softcap)
        return slope

    def _add_gradients(self, rows: slice, grad: Tensor) -> None:
        """Add the gradients that a block's logit gradients give."""
        if self._grad_bias is not None:
            self._grad_bias += grad.sum(0)
        if self._logits is not self._products:
            grad = self._products[: len(grad)].copy_(grad)
        if self._grad_hidden is not None:
            torch.mm(grad, self._matrix, out=self._grad_hidden[rows])
        if self._grad_product is not None and self._grad_weight is not None:
            torch.mm(grad.t(), self._inputs[rows], out=self._grad_product)
            self._grad_weight += self._grad_product
        elif self._grad_weight is not None:
            self._grad_weight.addmm_(grad.t(), self._inputs[rows])
