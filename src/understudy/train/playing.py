"""Playing within training: what the trainer asks for, and how the run is kept as if nobody had played.

Training knows no environments and no policies, so what plays is made outside and given to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn


class Rollouts(Protocol):
    """Lets the model that is being trained play held-out tasks.

    It is called after so many steps, on all ranks, and returns the same figures on all of them, each by its name;
    ``success`` (overall) and ``success/NAME`` (in one of several environments), where they are known, are shares. It
    may use the model, and leaves its weights as they are.
    """

    def __call__(self, model: nn.Module, step: int) -> Mapping[str, float | None]: ...


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Lend the model out for the length of the block: in eval mode, uncompiled, with its own attention.

    Afterwards mode and random numbers are as before, so no loss depends on whether anybody played.
    """
    was_training = model.training
    model.eval()
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.compiler.set_stance("force_eager"),  # prompts that grow would be compiled again and again
        ):
            yield
    finally:
        model.train(was_training)
