"""The fused cross entropy against torch's own, with autograd's gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from understudy.train import loss as loss_module
from understudy.train.loss import Head, cross_entropy

ROWS, WIDTH, VOCAB = 7, 6, 11
ROW = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])
LABEL = torch.tensor([3, 10, 0, 5, 5, 1, 2, 9, 9, 4])
WEIGHT = torch.tensor([0.5, 0.1, 1.0, 0.25, 2.0, -0.5, 0.3, 0.0, 1.0, 1.0], dtype=torch.float64)


def tensors(dtype: torch.dtype = torch.float64, *, bias: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randn(VOCAB, dtype=dtype, requires_grad=True) if bias else None


def reference(hidden: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Return (weighted loss, logits of every target) by torch's own operations."""
    logits = functional.linear(hidden, head.weight, head.bias) * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    chosen = logits[ROW]
    return (functional.cross_entropy(chosen, LABEL, reduction="none") * WEIGHT).sum(), chosen


@pytest.fixture(params=[1, 3, 100], ids=lambda rows: f"{rows}_rows_at_a_time")
def rows_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", request.param * VOCAB * 8)
    return request.param


@pytest.mark.parametrize(("scale", "softcap", "bias"), list(product([1.0, 0.3], [None, 2.0], [False, True])))
def test_loss_and_gradients_equal_torchs(scale: float, softcap: float | None, bias: bool, rows_at_a_time: int) -> None:
    inputs = tensors(bias=bias)
    head = Head(inputs[1], inputs[2], scale, softcap)
    expected, logits = reference(inputs[0], head)
    wanted = torch.autograd.grad(expected, [tensor for tensor in inputs if tensor is not None])
    result = cross_entropy(inputs[0], head, ROW, LABEL, WEIGHT)
    found = torch.autograd.grad(result.loss, [tensor for tensor in inputs if tensor is not None])
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(result.nll, functional.cross_entropy(logits, LABEL, reduction="none"))
    assert result.correct.tolist() == (logits.argmax(1) == LABEL).tolist()
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_no_more_logits_exist_than_the_bound(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    multiply = torch.mm

    def spy(rows: Tensor, matrix: Tensor, *, out: Tensor) -> Tensor:
        if out.shape[1] == VOCAB:
            seen.append(len(rows))
        return multiply(rows, matrix, out=out)

    monkeypatch.setattr(loss_module.torch, "mm", spy)
    hidden, weight, _ = tensors()
    cross_entropy(hidden, Head(weight), ROW, LABEL, WEIGHT)
    assert sum(seen) == ROWS
    assert max(seen) <= rows_at_a_time


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_do() -> None:
    hidden, weight, _ = tensors()
    weight.requires_grad_(False)
    cross_entropy(hidden, Head(weight), ROW, LABEL, WEIGHT).loss.backward()
    assert weight.grad is None
    expected = torch.autograd.grad(reference(hidden, Head(weight))[0], hidden)[0]
    torch.testing.assert_close(hidden.grad, expected)


def test_a_factor_on_the_loss_is_a_factor_on_the_gradients() -> None:
    hidden, weight, _ = tensors()
    (3 * cross_entropy(hidden, Head(weight), ROW, LABEL, WEIGHT).loss).backward()
    expected = torch.autograd.grad(3 * reference(hidden, Head(weight))[0], [hidden, weight])
    torch.testing.assert_close((hidden.grad, weight.grad), expected)


@pytest.mark.parametrize(("bias", "trains_hidden"), list(product([False, True], [False, True])))
def test_accumulated_gradients_of_the_head_equal_torchs(bias: bool, trains_hidden: bool, rows_at_a_time: int) -> None:
    hidden, *of_head = (None if tensor is None else tensor.detach() for tensor in tensors(bias=bias))
    assert hidden is not None
    hidden.requires_grad_(trains_hidden)
    weight, head_bias = (None if tensor is None else torch.nn.Parameter(tensor) for tensor in of_head)
    assert weight is not None
    head = Head(weight, head_bias, 0.3)
    trained = [tensor for tensor in (hidden, weight, head_bias) if tensor is not None and tensor.requires_grad]
    wanted = torch.autograd.grad(2 * reference(hidden, head)[0], trained)
    losses = [cross_entropy(hidden, head, ROW, LABEL, WEIGHT, accumulate=True).loss for _ in range(2)]
    assert all(loss.requires_grad == trains_hidden for loss in losses)
    for loss in losses:
        if trains_hidden:
            loss.backward()
    for tensor, expected in zip(trained, wanted, strict=True):
        torch.testing.assert_close(tensor.grad, expected)


def test_a_grad_that_is_coarser_than_the_sums_is_left_to_the_backward_pass() -> None:
    hidden, weight, _ = (None if tensor is None else tensor.detach().bfloat16() for tensor in tensors())
    assert hidden is not None
    assert weight is not None
    parameter = torch.nn.Parameter(weight)
    loss = cross_entropy(hidden, Head(parameter), ROW, LABEL, WEIGHT, accumulate=True).loss
    assert parameter.grad is None
    loss.backward()
    expected = torch.autograd.grad(reference(hidden, Head(parameter))[0], parameter)[0]
    torch.testing.assert_close(parameter.grad, expected, rtol=5e-2, atol=5e-2)


def test_without_gradients_none_are_made() -> None:
    hidden, weight, _ = tensors()
    with torch.no_grad():
        result = cross_entropy(hidden, Head(torch.nn.Parameter(weight)), ROW, LABEL, WEIGHT, accumulate=True)
    assert not result.loss.requires_grad
    torch.testing.assert_close(result.loss, reference(hidden, Head(weight))[0].detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_the_products_low_and_the_loss_in_float32(dtype: torch.dtype) -> None:
    hidden, weight, _ = tensors(torch.float32)
    expected, _ = reference(hidden, Head(weight))
    wanted = torch.autograd.grad(expected, [hidden, weight])
    with torch.autocast("cpu", dtype=dtype):
        result = cross_entropy(hidden, Head(weight), ROW, LABEL, WEIGHT)
    found = torch.autograd.grad(result.loss, [hidden, weight])
    assert result.nll.dtype == torch.float32
    torch.testing.assert_close(result.loss.double(), expected, rtol=2e-2, atol=2e-2)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-2)
