"""What the launcher (`torchrun`, `accelerate launch`) tells a process about its place. No torch."""

from __future__ import annotations

import os


def world_size() -> int:
    """Return the number of processes that were started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number among them."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
