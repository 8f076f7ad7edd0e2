"""A model that lies in shards on all ranks (torch's FSDP2 and tensor parallelism), from the moment it is loaded.

The main rank reads the weights into its CPU's memory. All others make the same model without weights, both are cut by
`cut_layers` and `fully_shard`, and then each tensor goes to all ranks, which keep their own part of it. So no device
ever holds more than its shards and one unit: a layer, or what is outside of layers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from understudy.errors import ConfigError, UnderstudyError

from .adapter import ModelAdapter, decoder_layers
from .config import TrainConfig
from .distributed import from_main
from .lockstep import Lockstep, WholeModel
from .setup import empty_trainable, load_trainable
from .tensor_parallel import cut_layers


def load_sharded(config: TrainConfig, base: str | Path, checkpoint: Path | None, device: torch.device) -> ModelAdapter:
    """Return the model to train, new or as a checkpoint left it, with each rank's shards on its device.

    Raises:
        ConfigError: it cannot be loaded or cannot be sharded, or torch is too old.
    """
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise ConfigError(
            f"train.fsdp and train.tp_size need a newer torch than {torch.__version__}: pip install --upgrade torch"
        )
    model = _same_on_all_ranks(config, base, checkpoint)
    whole = {name: p.data for name, p in model.named_parameters()} if dist.get_rank() == 0 else {}
    dtype = torch.bfloat16 if config.train.bf16 else torch.float16 if config.train.fp16 else None
    size = config.train.fsdp_size if config.train.fsdp else 1
    root = shard(model, device, dtype, size, config.train.tp_size)
    if dist.get_rank() != 0:
        root.to_empty(device=device)
    _send_out(model, whole, device)
    model.train()
    return ModelAdapter(model, Lockstep(root, device, dtype))


def shard(
    model: nn.Module,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    size: int | None = None,
    tp_size: int = 1,
) -> WholeModel:
    """Cut a model over `size` data ranks, or all: each decoder layer is a unit, and what is outside of layers one more.

    A data rank is one process, or `tp_size` of them over which layers are cut first.

    Layers get their weights in the dtype in which they compute, because a copy that autocast made would be held until
    the backward pass. Gradients are summed, in float32 at least: the step's denominators are global.

    Raises:
        ConfigError: it has no layers that are known here, a unit trains weights of several dtypes, or the ranks are no
            multiple of the size.
    """
    layers = decoder_layers(model)
    if not layers:
        raise ConfigError(
            f"train.fsdp, train.tp_size: {type(model).__name__} has no decoder layers that are known here; leave them "
            "out"
        )
    _check_dtypes(model, layers)
    num_ranks = dist.get_world_size() // tp_size
    size = size or num_ranks
    whole_mesh = _mesh(device, num_ranks, size, tp_size)
    if tp_size > 1:
        cut_layers(model, whole_mesh["tp"])
    mesh = whole_mesh["shard"] if size == num_ranks else whole_mesh["copy", "shard"]
    place = partial(_placement, size)
    trained = next(p.dtype for p in model.parameters() if p.requires_grad)
    sums = torch.promote_types(trained, torch.float32)
    for layer in layers:
        policy = MixedPrecisionPolicy(param_dtype=autocast_dtype, reduce_dtype=sums, cast_forward_inputs=False)
        fully_shard(layer, mesh=mesh, mp_policy=policy, shard_placement_fn=place)
    root = WholeModel(model)
    policy = MixedPrecisionPolicy(reduce_dtype=sums, cast_forward_inputs=False)
    fully_shard(root, mesh=mesh, mp_policy=policy, shard_placement_fn=place, reshard_after_forward=False)
    for unit in (root, *layers):
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    root.set_reduce_scatter_unused_params(True)  # experts that only some ranks' tokens go to, a head without targets
    return root


def _mesh(device: torch.device, num_ranks: int, size: int, tp_size: int) -> DeviceMesh:
    """Return all processes: a plane for each copy of the model, in it a row for each of its shards, cut again by tp."""
    if num_ranks % size:
        ranks = "processes" if tp_size == 1 else f"groups of {tp_size} processes (train.tp_size)"
        raise ConfigError(
            f"train.fsdp_size: {num_ranks} {ranks} cannot hold whole copies of {size} each; set it to a divisor of "
            f"{num_ranks}, or leave it out"
        )
    shape = (num_ranks // size, size, tp_size)
    return init_device_mesh(device.type, shape, mesh_dim_names=("copy", "shard", "tp"))


def _placement(size: int, parameter: nn.Parameter) -> Shard:
    """Return how to cut a parameter: by its first dimension, but where that has fewer entries than there are ranks.

    Matrices of experts are one tensor, and experts may be few; then one that can be cut evenly is taken.
    """
    if parameter.shape[0] >= size:
        return Shard(0)
    return Shard(next((dim for dim, length in enumerate(parameter.shape) if length % size == 0), 0))


def shard_like(whole: Tensor, parameter: DTensor) -> DTensor:
    """Return this rank's part of a tensor that every rank has, cut as a parameter of its shape is."""
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _same_on_all_ranks(config: TrainConfig, base: str | Path, checkpoint: Path | None) -> Any:
    """Return the model with weights on the main rank, and without on the others."""
    model: Any = None
    problem: UnderstudyError | None = None
    if dist.get_rank() == 0:
        try:
            model = load_trainable(config, base, checkpoint, torch.device("cpu"))
        except UnderstudyError as error:
            problem = error
    told = from_main(None if problem is None else str(problem))
    if told is not None:
        raise problem or ConfigError(told)
    if model is None:
        model = empty_trainable(config, base)
    facts = from_main({name: (p.dtype, p.requires_grad) for name, p in model.named_parameters()})
    for name, parameter in model.named_parameters():
        dtype, is_trained = facts[name]
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(is_trained)
    return model


def _check_dtypes(model: nn.Module, layers: list[nn.Module]) -> None:
    """Refuse a unit whose gradients could not be summed as one."""
    in_layers = {id(p) for layer in layers for p in layer.parameters()}
    outside = [p for p in model.parameters() if id(p) not in in_layers]
    for unit in (*([*layer.parameters()] for layer in layers), outside):
        dtypes = {str(p.dtype).removeprefix("torch.") for p in unit if p.requires_grad}
        if len(dtypes) > 1:
            raise ConfigError(
                f"train.fsdp: weights in {' and '.join(sorted(dtypes))} are trained in one layer, and a shard has one "
                "dtype; set model.dtype: float32"
            )


@torch.no_grad()
def _send_out(model: nn.Module, whole: dict[str, Tensor], device: torch.device) -> None:
    """Send the main rank's weights to all ranks, one tensor after the other; each keeps its part."""
    for name, parameter in model.named_parameters():
        if dist.get_rank() == 0:
            tensor = whole.pop(name).contiguous().to(device)
        else:
            tensor = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        dist.broadcast(tensor, src=0)
        parameter.to_local().copy_(shard_like(tensor, parameter).to_local())
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
