"""Processes that meet through gloo, as those of a launcher do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(work: Callable[..., Any], num_processes: int, folder: Path, *arguments: Any) -> list[Any]:
    """Return what `work(rank, *arguments)` returned in each process of a group; the folder is for this call alone."""
    torch.save(arguments, folder / "arguments.pt")
    mp.spawn(_run, (work, num_processes, str(folder)), nprocs=num_processes)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(num_processes)]


def _run(rank: int, work: Callable[..., Any], num_processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=num_processes)
    arguments = torch.load(Path(folder) / "arguments.pt", weights_only=False)
    torch.save(work(rank, *arguments), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
