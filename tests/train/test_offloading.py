"""Activations that wait elsewhere: the same gradients to the bit, and nothing but activations goes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from understudy.train.adapter import ModelAdapter
from understudy.train.attention.cpu import CpuBackend
from understudy.train.offloading import ActivationOffloading
from understudy.train.runner import RowRunner, TreeRunner

from .small import model
from .test_runner import one_step, run

EVERYTHING = {"device_type": "cpu", "min_bytes": 0}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("kind", "layout"), [("tree", "depth_first"), ("tree", "tree"), ("rows", "rows")])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_gradients_are_the_same_to_the_bit(
    kind: str, layout: str, dtype: torch.dtype | None, checkpointing: bool
) -> None:
    adapter = ModelAdapter(model())
    if checkpointing:
        adapter.enable_gradient_checkpointing()
    offloading = ActivationOffloading(adapter.model, **EVERYTHING)
    results = []
    for given in (None, offloading):
        runner = (
            TreeRunner(adapter, CpuBackend(), autocast_dtype=dtype, offloading=given)
            if kind == "tree"
            else RowRunner(adapter, autocast_dtype=dtype, offloading=given)
        )
        results.append(run(adapter, runner, one_step(layout, 500 if layout != "depth_first" else 25)))
    assert offloading.num_bytes > 0
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


def test_activations_are_let_go_of_and_weights_are_not_copied() -> None:
    """The inner activation lives on as a copy only; a weight that autograd keeps is the weight itself."""
    network = nn.Sequential(nn.Linear(7, 5), nn.Sigmoid(), nn.Linear(5, 3))
    offloading = ActivationOffloading(network, **EVERYTHING)
    held: list[weakref.ref[torch.Tensor]] = []
    for layer in network:
        layer.register_forward_hook(lambda _, __, out: held.append(weakref.ref(out)))
    inputs = torch.randn(4, 7)
    with offloading:
        loss = network(inputs).square().sum()
    gc.collect()
    assert [ref() is None for ref in held] == [True, True, True]
    inputs_and_outputs = 4 * (4 * 7 + 4 * 5 + 4 * 5 + 4 * 3)  # of the first layer, the sigmoid, the second, the square
    assert offloading.num_bytes == inputs_and_outputs
    loss.backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    network(inputs).square().sum().backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in network.parameters()], rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("num_tokens", [4, 5])
def test_the_copies_of_weights_that_autocast_makes_stay(num_tokens: int, frozen: bool) -> None:
    """Also where an activation has the shape of a weight, it goes and the weight's copy stays."""
    network = nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 5).requires_grad_(not frozen), nn.Linear(5, 3))
    offloading = ActivationOffloading(network, **EVERYTHING)
    with torch.autocast("cpu", dtype=torch.bfloat16), offloading:
        network(torch.randn(num_tokens, 7, requires_grad=True)).sum().backward()
    inputs = 7 + (0 if frozen else 7) + 5  # a frozen layer needs none
    assert offloading.num_bytes == 2 * num_tokens * inputs


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_adapters_and_a_head_that_is_tied_to_the_embedding_get_the_same_gradients(dtype: torch.dtype | None) -> None:
    network = model("llama", tie_word_embeddings=True)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"])
    for adapter in (ModelAdapter(network), ModelAdapter(get_peft_model(network, lora))):
        offloading = ActivationOffloading(adapter.model, **EVERYTHING)
        results = [
            run(
                adapter,
                TreeRunner(adapter, CpuBackend(), autocast_dtype=dtype, offloading=given),
                one_step("depth_first"),
            )
            for given in (None, offloading)
        ]
        assert offloading.num_bytes > 0
        assert results[0][0] == results[1][0]
        assert results[0][1]
        assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


def test_small_tensors_and_those_on_other_devices_stay() -> None:
    network = nn.Linear(7, 5)
    for settings in ({"device_type": "cpu", "min_bytes": 4 * 4 * 7 + 1}, {"device_type": "cuda", "min_bytes": 0}):
        offloading = ActivationOffloading(network, **settings)
        with offloading:
            network(torch.randn(4, 7)).sum().backward()
        assert offloading.num_bytes == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_less_of_the_gpu_is_held() -> None:
    network = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(20))).cuda()
    held = []
    for offloading in (None, ActivationOffloading(network, device_type="cuda")):
        inputs = torch.randn(10_000, 64, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
        before = torch.cuda.memory_allocated()
        with offloading or torch.enable_grad():
            loss = network(inputs).sum()
        held.append(torch.cuda.memory_allocated() - before)
        loss.backward()
    assert held[1] < held[0] / 4
