"""Optimiser and learning rate schedule, as the config names them."""

from __future__ import annotations

import math

import torch
from torch import nn

from understudy.errors import MissingDependency

from .config import TrainSection


def make_optimizer(model: nn.Module, config: TrainSection) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters. Biases, those of experts too, and norms do not decay.

    Raises:
        MissingDependency: the optimiser's package is not installed.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decays = [parameter.ndim >= 2 and not name.endswith("bias") for name, parameter in trainable]
    groups = [
        {"params": [p for (_, p), decay in zip(trainable, decays, strict=True) if decay == wanted], "weight_decay": by}
        for wanted, by in ((True, config.weight_decay), (False, 0.0))
    ]
    settings = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
    }
    groups = [group for group in groups if group["params"]]
    if config.optim == "adamw_8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise MissingDependency(
                "bitsandbytes", needed_for="train.optim: adamw_8bit", install="bitsandbytes"
            ) from error
        return AdamW8bit(groups, **settings)
    return torch.optim.AdamW(groups, **settings, fused=config.optim == "adamw_torch_fused")


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainSection, num_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return transformers' schedule of this name over a run of `num_steps` steps."""
    from transformers import get_scheduler

    num_warmup_steps = config.warmup_steps or math.ceil(num_steps * config.warmup_ratio)
    name: str = config.lr_scheduler_type
    if name == "constant" and num_warmup_steps:
        name = "constant_with_warmup"
    return get_scheduler(name, optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=num_steps)


def num_steps(config: TrainSection, steps_per_epoch: int) -> int:
    """Return how many optimiser steps the run has."""
    return config.max_steps or max(math.ceil(config.num_train_epochs * steps_per_epoch), 1)
