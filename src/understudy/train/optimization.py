"""Optimiser and learning rate schedule, as the config names them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from understudy.errors import ConfigError, MissingDependency

from .config import TrainSection


class JointOptimizer(torch.optim.Optimizer):
    """Several optimisers, each over parameters of its own, that step and are saved as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})  # the very groups of the parts

    def step(self, closure: Any = None) -> None:
        """Make a step with each of them."""
        for part in self.parts:
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts, in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)  # makes new groups
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimizer(model: nn.Module, config: TrainSection) -> torch.optim.Optimizer:
    """Return the optimiser over the trainable parameters. Biases, those of experts too, and norms do not decay.

    Raises:
        ConfigError: Muon is asked for, and no matrix of a hidden layer is trained.
        MissingDependency: the optimiser's package is not installed.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if config.optim != "muon":
        return _adamw(trainable, config)
    matrices = hidden_matrices(model)
    if not matrices:
        raise ConfigError(
            "train.optim is muon, which is for the matrices of hidden layers, and none is trained; take adamw_torch"
        )
    muon = torch.optim.Muon(
        matrices.values(),
        lr=config.muon_learning_rate or config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",  # its updates are then as large as AdamW's
    )
    rest = {name: parameter for name, parameter in trainable.items() if name not in matrices}
    return JointOptimizer(_adamw(rest, config), muon) if rest else muon


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what Muon trains, by name: the trainable matrices but those of embeddings and of the output layer.

    A tensor that holds the matrices of several experts is not one, and neither is one of experts' biases.
    """
    outer = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if hasattr(model, "get_output_embeddings"):
        outer.append(model.get_output_embeddings())
    left_out = {id(parameter) for module in outer for parameter in module.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim == 2 and id(parameter) not in left_out
        if not name.endswith("bias")
    }


def _adamw(trainable: Mapping[str, nn.Parameter], config: TrainSection) -> torch.optim.Optimizer:
    decays = {name: parameter.ndim >= 2 and not name.endswith("bias") for name, parameter in trainable.items()}
    groups = [
        {"params": [p for name, p in trainable.items() if decays[name] == wanted], "weight_decay": by}
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
    return torch.optim.AdamW(groups, **settings, fused=config.optim != "adamw_torch")


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
