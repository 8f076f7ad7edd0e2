"""One order of passes for all ranks of a sharded model.

A layer's weights are put together from all ranks for each pass through it, so every rank has to be there for every pass
of any other. But how many passes a rank has, and of what kind, depends on the tokens that it was given. So the ranks
tell each other what they are about to run, all of them derive the same order from that, and a rank that has nothing of
the kind that is due runs a pass over one token, which adds zeros to the gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

import torch
from torch import nn

from .distributed import gathered

T = TypeVar("T")


class Pass(StrEnum):
    """What a pass through the model does; each is complete in itself."""

    FORWARD = "f"
    FORWARD_BACKWARD = "b"


class WholeModel(nn.Module):
    """The root of a sharded model: what runs within its forward finds the weights outside of layers whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()


class Lockstep:
    """Runs passes through a sharded model.

    Args:
        root: holds the model; `fully_shard` was applied to it.
        device: where it is.
        autocast_dtype: what layers receive their weights in, and compute in; None for the weights' own dtype.
    """

    def __init__(self, root: WholeModel, device: torch.device, autocast_dtype: torch.dtype | None) -> None:
        self.autocast_dtype = autocast_dtype
        self._root = root
        self._device = device
        self._due: deque[Pass] = deque()
        self._idle: Callable[[Pass], None] | None = None

    def run(self, compute: Callable[[], T]) -> T:
        """Run a pass; within `together` when its turn has come. With gradients enabled a backward pass must follow."""
        own = Pass.FORWARD_BACKWARD if torch.is_grad_enabled() else Pass.FORWARD
        while self._idle is not None and (due := self._next()) != own:
            self._run_idle(due)
        result = self.run_at_once(compute)
        if self._idle is None and own is Pass.FORWARD:
            self._let_go()
        return result

    def run_at_once(self, compute: Callable[[], T]) -> T:
        """Run a pass that all ranks run now."""
        if self.autocast_dtype is None:
            return self._root(compute)
        with torch.autocast(self._device.type, dtype=self.autocast_dtype):
            return self._root(compute)

    @contextmanager
    def together(self, own: Sequence[Pass], idle: Callable[[Pass], None]) -> Iterator[None]:
        """Let every rank run passes of its own in the block.

        Args:
            own: this rank's, in the order in which the block runs them.
            idle: runs a pass that adds nothing.
        """
        self._due = deque(common_order(gathered("".join(own))))
        self._idle = idle
        self._root.set_requires_all_reduce(not self._due)
        yield
        while self._due:
            self._run_idle(self._next())
        self._idle = None
        self._let_go()

    def _let_go(self) -> None:
        """Leave shards alone in the model: a forward pass without a backward pass leaves the root's weights whole."""
        self._root.reshard()

    def _next(self) -> Pass:
        """Return what all ranks run now. In the last pass gradients are summed over copies of the model too."""
        due = self._due.popleft()
        if not self._due:
            self._root.set_requires_all_reduce(True)
        return due

    def _run_idle(self, due: Pass) -> None:
        assert self._idle is not None
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(due is Pass.FORWARD_BACKWARD):
            self._idle(due)


def common_order(passes: Sequence[str]) -> list[Pass]:
    """Return an order in which every rank finds its own passes; the rank with most left says what comes next."""
    order: list[Pass] = []
    done = [0] * len(passes)
    while any(at < len(own) for at, own in zip(done, passes, strict=True)):
        first = max(range(len(passes)), key=lambda rank: len(passes[rank]) - done[rank])
        due = passes[first][done[first]]
        order.append(Pass(due))
        done = [at + (own[at : at + 1] == due) for at, own in zip(done, passes, strict=True)]
    return order
