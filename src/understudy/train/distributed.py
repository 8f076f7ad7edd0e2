"""Several processes of one run: joining them, and agreeing on what concerns all of them.

A process that fails alone would leave the others waiting in a collective for ever, so whatever may fail on one rank
only is agreed upon by all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import torch
import torch.distributed as dist

from understudy.errors import TrainError

from .launch import local_rank, rank, world_size


def training_device(wanted: str) -> torch.device:
    """Return this process's device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        TrainError: CUDA is wanted and there is none, or there are more processes than GPUs.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainError("train.device is cuda, but torch sees no GPU; set train.device: cpu, or install a CUDA torch")
    if local_rank() >= torch.cuda.device_count():
        raise TrainError(
            f"process {local_rank()} of this machine finds {torch.cuda.device_count()} GPU(s); start one process each"
        )
    return torch.device("cuda", local_rank())


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that the launcher started, for the length of the block; nothing without a launcher."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # What an earlier group of the same processes has left under its names would be taken for this one's.
    store = dist.PrefixStore(f"understudy {next(_group_numbers)}", _store())
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size())
    try:
        yield
        dist.barrier()  # who leaves first takes its end of the connections away from who still uses them
    finally:
        dist.destroy_process_group()


_group_numbers = count()


@cache
def _store() -> dist.Store:
    """Return where the launcher's processes find each other."""
    store, _, _ = next(dist.rendezvous("env://"))
    return store


def gathered(value: Any) -> list[Any]:
    """Return every rank's value, in the order of ranks. A barrier too."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_main(value: Any) -> Any:
    """Return the main rank's value on all ranks."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
