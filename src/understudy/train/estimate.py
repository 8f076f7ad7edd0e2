"""What a run would do, without doing it: data, plan, and how much memory it would take.

The memory is an estimate from the model's sizes: exact for weights, gradients and the optimiser, rough for activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .config import TrainConfig, TrainSection
from .data import PreparedData
from .inputs import RunInputs
from .launch import world_size
from .loss import LOGITS_BYTES
from .setup import (
    check_fits,
    check_vocabulary,
    empty_trainable,
    examples_per_step,
    is_sharded,
    make_planner,
    num_data_ranks,
)

NUM_PLANNED_STEPS = 20

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
# NF4 with double quantisation: 4 bits, 8 bits for each block of 64, 32 bits for each 256 blocks.
_BYTES_IN_4BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
# Tensors of hidden width that a decoder layer keeps for its backward pass: the inputs of two norms and what they make,
# the two residual sums; and queries, keys, values, the attention's output.
_HIDDEN_TENSORS_PER_LAYER = 6
_TENSORS_OF_HEADS_PER_LAYER = 4
_FEED_FORWARD_TENSORS_PER_LAYER = 4


@dataclass(frozen=True, slots=True)
class StepPlans:
    """The first steps of the run, over all ranks; medians where a step has a figure."""

    num_steps: int
    steps_per_epoch: int
    examples_per_step: int
    num_planned: int
    tokens: float
    row_tokens: float
    forward_passes: float
    longest_path: int

    @property
    def tree_saving(self) -> float:
        return 1 - self.tokens / self.row_tokens


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device; `gathered` is what a sharded model's pass holds beside the device's own shards."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.gathered


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do."""

    config: TrainConfig
    model: str
    data: PreparedData
    rendering_fingerprint: str
    num_parameters: int
    num_trained: int
    plans: StepPlans
    memory: MemoryEstimate


def describe(inputs: RunInputs) -> DryRun:
    """Plan the first steps and estimate the memory.

    Raises:
        UnderstudyError: something of it cannot work.
    """
    config = inputs.config
    check_fits(inputs.data, config.train)
    plans = _plan(inputs.data, config.train)
    model = empty_trainable(config, inputs.base)
    check_vocabulary(inputs.data, len(model.get_input_embeddings().weight))
    num_parameters = sum(p.numel() for p in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return DryRun(
        config=config,
        model=f"tiny {config.model.tiny}" if config.model.tiny is not None else inputs.base,
        data=inputs.data,
        rendering_fingerprint=inputs.renderer.fingerprint(),
        num_parameters=num_parameters,
        num_trained=num_trained,
        plans=plans,
        memory=_memory(config, model, plans),
    )


def _plan(data: PreparedData, config: TrainSection) -> StepPlans:
    num_ranks = num_data_ranks(config, world_size())
    planner, sampler, num_steps = make_planner(data, config, num_ranks)
    num_planned = min(num_steps, NUM_PLANNED_STEPS)
    steps = [[planner.plan(step, rank) for rank in range(num_ranks)] for step in range(num_planned)]
    chunks = [sum(len(b.chunks) for plan in ranks for b in plan.micro_batches) for ranks in steps]
    return StepPlans(
        num_steps=num_steps,
        steps_per_epoch=sampler.steps_per_epoch,
        examples_per_step=examples_per_step(config, num_ranks),
        num_planned=num_planned,
        tokens=float(np.median([sum(plan.num_tokens for plan in ranks) for ranks in steps])),
        row_tokens=float(np.median([sum(plan.num_row_tokens for plan in ranks) for ranks in steps])),
        forward_passes=float(np.median(chunks)) / num_ranks,
        longest_path=max(example.longest_path for source in data.train for example in source.examples),
    )


def _memory(config: TrainConfig, model: Any, plans: StepPlans) -> MemoryEstimate:
    from .optimization import hidden_matrices

    text_config = model.config.get_text_config()
    saved_dtype = str(getattr(text_config, "dtype", None) or "float32").removeprefix("torch.")
    dtype = config.model.dtype or ("float32" if config.lora is None else "auto")
    weight_bytes = _BYTES[saved_dtype if dtype == "auto" else dtype]
    sizes = _sizes(model, config.train.tp_size)
    num_trained = sum(sizes[p] for p in model.parameters() if p.requires_grad)
    num_frozen = sum(sizes.values()) - num_trained
    num_in_4bit = _num_in_4bit(model) if config.model.load_in_4bit else 0
    trained_bytes = 4 if config.lora is not None else weight_bytes  # PEFT holds adapters in float32
    moment_bytes = 1 if config.train.optim == "adamw_8bit" else trained_bytes
    num_moments = 2 * num_trained
    if config.train.optim == "muon":
        num_moments -= sum(p.numel() for p in hidden_matrices(model).values())  # of which it keeps one
    weights = (num_frozen - num_in_4bit) * weight_bytes + int(num_in_4bit * _BYTES_IN_4BIT)
    weights += num_trained * trained_bytes
    num_shards, gathered = 1, 0
    if is_sharded(config.train, world_size()):
        if config.train.fsdp:
            num_shards = config.train.fsdp_size or num_data_ranks(config.train, world_size())
        gathered = _gathered(config.train, model, sizes, weight_bytes, trained_bytes)
    return MemoryEstimate(
        weights=weights // num_shards,
        gradients=num_trained * trained_bytes // num_shards,
        optimizer=num_moments * moment_bytes // num_shards,
        activations=_activations(config.train, text_config, plans, weight_bytes),
        gathered=gathered,
    )


def _sizes(model: Any, tp_size: int) -> dict[Any, int]:
    """Return how many numbers of each parameter a device computes with."""
    sizes = {p: p.numel() for p in model.parameters()}
    if tp_size > 1:
        from .tensor_parallel import layer_plan

        for name in layer_plan(model, tp_size):
            module = model.get_submodule(name)
            if hasattr(module, "in_features"):
                sizes[module.weight] //= tp_size
    return sizes


def _gathered(config: TrainSection, model: Any, sizes: dict[Any, int], weight_bytes: int, trained_bytes: int) -> int:
    """Return the bytes of weights and gradients that a pass through a sharded model holds whole.

    They are those outside of layers, and of the largest layer, while the weights of the next one are on their way.
    """
    from .adapter import decoder_layers

    layers = [[*layer.parameters()] for layer in decoder_layers(model)]
    inner = {id(p) for layer in layers for p in layer}
    outer = [p for p in model.parameters() if id(p) not in inner]
    layer = max(layers, key=lambda parameters: sum(sizes[p] for p in parameters), default=[])
    half = config.bf16 or config.fp16

    def size(parameters: list[Any], *, in_half: bool) -> tuple[int, int]:
        """Return the bytes of weights and of gradients."""
        trained = sum(sizes[p] for p in parameters if p.requires_grad)
        frozen = sum(sizes[p] for p in parameters) - trained
        each = (2, 2) if in_half else (weight_bytes, trained_bytes)
        return frozen * each[0] + trained * each[1], trained * each[1]

    weights, gradients = size(layer, in_half=half)
    return 2 * weights + gradients + sum(size(outer, in_half=False))


def _num_in_4bit(model: Any) -> int:
    """Return how many weights `model.load_in_4bit` quantises: those of frozen linear layers but the output layer."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)
    return sum(layer.weight.numel() for layer in linear if not layer.weight.requires_grad)


def _activations(config: TrainSection, model: Any, plans: StepPlans, weight_bytes: int) -> int:
    """Return roughly what one root-to-leaf path of chunks holds for its backward pass, and one chunk of logits."""
    bytes_each = 2 if config.bf16 or config.fp16 else weight_bytes
    batch = config.max_tokens_per_batch
    # Depth first, the chunks of one path are held, and at least one chunk full of short rows.
    tokens = max(plans.longest_path, min(batch, int(plans.tokens))) if config.layout == "depth_first" else batch
    feed_forward = getattr(model, "intermediate_size", None) or 4 * model.hidden_size
    cut = _TENSORS_OF_HEADS_PER_LAYER * model.hidden_size + _FEED_FORWARD_TENSORS_PER_LAYER * feed_forward
    width = _HIDDEN_TENSORS_PER_LAYER * model.hidden_size + cut // config.tp_size
    if config.gradient_checkpointing:
        per_token = model.num_hidden_layers * model.hidden_size + width
    elif config.activation_offloading:  # keys and values stay, because the chunks below use them
        per_token = model.num_hidden_layers * 2 * model.hidden_size + width
    else:
        per_token = model.num_hidden_layers * width
    logits = min(LOGITS_BYTES, 4 * tokens * model.vocab_size)
    return int(tokens * per_token * bytes_each) + logits
