"""Layers cut over the processes of a group (tensor parallelism): each computes some of the heads and a part of the MLP.

Transformers says of a model's linear layers which of them are cut by columns, so that each process makes a part of what
comes out (the queries, keys and values of its heads), and which by rows, so that each takes a part of what goes in and
the results are summed. torch's styles do both. All else, from norms to embeddings and output layer, is whole everywhere
and computes the same on all processes of a group, so weights that are whole get whole gradients.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from understudy.errors import ConfigError

_COLUMNS, _ROWS = "colwise", "rowwise"
_NORM_OF_HEADS = "replicated_with_grad_allreduce"
_COLUMNS_GATHERED, _ROWS_OF_WHOLE = "colwise_gather_output", "rowwise_split_input"

_LEAVE_OUT = "leave train.tp_size out, and cut the model with train.fsdp: true"


def cut_layers(model: Any, mesh: DeviceMesh) -> None:
    """Cut the layers of a model, plain or with LoRA adapters, over a mesh of one dimension; nothing is communicated.

    Raises:
        ConfigError: they cannot be cut, or not in so many parts.
    """
    styles: dict[str, ParallelStyle] = {
        _COLUMNS: ColwiseParallel(),
        _ROWS: RowwiseParallel(),
        _COLUMNS_GATHERED: ColwiseParallel(output_layouts=Replicate()),
        _ROWS_OF_WHOLE: RowwiseParallel(input_layouts=Replicate()),
        # A norm within heads has one weight for all of them, so its gradients are summed. Which dimension is taken for
        # that of the heads makes no difference to a norm over the last one.
        _NORM_OF_HEADS: SequenceParallel(sequence_dim=2, use_local_output=True),
    }
    # It warns that what is cut in two ways is gathered in two steps, which is meant.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    is_trained = {name: p.requires_grad for name, p in model.named_parameters()}
    plan = {name: styles[style] for name, style in layer_plan(model, mesh.size()).items()}
    parallelize_module(model, mesh, plan, src_data_rank=None)
    for name in plan:
        model.get_submodule(name).register_forward_hook(_wait)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained[name])


def _wait(_module: nn.Module, _inputs: Any, output: Any) -> None:
    """Wait for what is summed: torch holds it until then, and a layer that is recomputed may end before it is used."""
    if isinstance(output, AsyncCollectiveTensor):
        output.wait()


def layer_plan(model: Any, size: int) -> dict[str, str]:
    """Return how modules are cut in `size` parts, by their names: those that the model's plan names, or their adapters.

    Raises:
        ConfigError: they cannot be cut, or not in so many parts.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = base.get_decoder()
    patterns = _patterns(backbone)
    _check_heads(backbone.config, size)
    outer = {id(base.get_input_embeddings()), id(base.get_output_embeddings())}
    styles = {
        name: style
        for name, module in backbone.named_modules()
        if (style := _style(name, patterns)) is not None and id(module) not in outer
    }
    _check_complete(backbone, styles)
    names = {id(module): name for name, module in model.named_modules()}
    plan: dict[str, str] = {}
    for name, style in styles.items():
        module = backbone.get_submodule(name)
        parts = _parts(name, module, style)
        _check_width(name, backbone, style, size)
        own = names[id(module)]
        plan |= {f"{own}.{part}" if part else own: how for part, how in parts.items()}
    return plan


def _patterns(backbone: Any) -> dict[str, str]:
    """Return the plan of transformers for the layers of a model: styles by the names of modules, with * for numbers."""
    found: Mapping[str, str] = getattr(backbone.config, "base_model_tp_plan", None) or {}
    plan = {name: style for name, style in found.items() if "*" in name}
    if not plan:
        raise ConfigError(
            f"train.tp_size: transformers has no plan for cutting the layers of {type(backbone).__name__}; {_LEAVE_OUT}"
        )
    known = {_COLUMNS, _ROWS, _NORM_OF_HEADS, _COLUMNS_GATHERED, _ROWS_OF_WHOLE}
    unknown = {name: style for name, style in plan.items() if style not in known}
    if unknown:
        name, style = next(iter(unknown.items()))
        raise ConfigError(
            f"train.tp_size: {type(backbone).__name__} has layers that are cut in ways that are not supported here "
            f"({name}: {style}); {_LEAVE_OUT}"
        )
    return plan


def _style(name: str, patterns: Mapping[str, str]) -> str | None:
    return patterns.get(re.sub(r"(?<=\.)\d+(?=\.)", "*", name))


def _parts(name: str, module: nn.Module, style: str) -> dict[str, str]:
    """Return how the parts of a module are cut, by their names within it; that of the module itself is empty.

    A low-rank adapter has its narrow middle whole: of a layer that is cut by columns its second matrix is cut so too,
    and of one that is cut by rows its first.
    """
    if isinstance(module, nn.Linear) or (style == _NORM_OF_HEADS and not [*module.children()]):
        return {"": style}
    linear = {
        inner: part for inner, part in module.named_modules() if inner and any(True for _ in part.parameters(False))
    }
    kinds = {inner.partition(".")[0] for inner in linear}
    if not kinds <= {"base_layer", "lora_A", "lora_B"} or not all(isinstance(p, nn.Linear) for p in linear.values()):
        raise ConfigError(
            f"train.tp_size: {name} is a {type(module).__name__}, which cannot be cut; of adapters take plain LoRA "
            "without lora.use_dora, and leave layers out of lora.modules_to_save"
        )
    cut = {"base_layer", "lora_B" if style in (_COLUMNS, _COLUMNS_GATHERED) else "lora_A"}
    return {inner: style for inner in linear if inner.partition(".")[0] in cut}


def _check_heads(config: Any, size: int) -> None:
    for key, kind in (("num_attention_heads", "attention heads"), ("num_key_value_heads", "key and value heads")):
        number = getattr(config, key, None)
        if isinstance(number, int) and number % size:
            raise _indivisible(f"this model has {number} {kind}", number, size)


def _check_width(name: str, backbone: nn.Module, style: str, size: int) -> None:
    """Refuse a linear layer whose cut would go through a head, or be uneven."""
    module, parent = (backbone.get_submodule(path) for path in (name, name.rpartition(".")[0]))
    by_columns = style in (_COLUMNS, _COLUMNS_GATHERED)
    width = getattr(module, "out_features" if by_columns else "in_features", size)
    if width % size:
        raise _indivisible(f"{name} is {width} wide", width, size)
    head_dim = getattr(parent, "head_dim", None) if style == _COLUMNS else None
    if head_dim and width % head_dim == 0 and width // head_dim % size:
        raise _indivisible(f"{name} makes {width // head_dim} heads", width // head_dim, size)


def _indivisible(what: str, number: int, size: int) -> ConfigError:
    return ConfigError(
        f"train.tp_size: {what}, which cannot be dealt out to {size} processes; set it to a divisor of {number}, and "
        "cut the model further with train.fsdp: true"
    )


def _check_complete(backbone: nn.Module, styles: Mapping[str, str]) -> None:
    """Refuse weights beside cut ones that the plan passes over: whether their gradients are whole cannot be told."""
    for name in dict.fromkeys(name.rpartition(".")[0] for name, style in styles.items() if style == _COLUMNS):
        for inner, _ in backbone.get_submodule(name).named_parameters():
            full = f"{name}.{inner}"
            if not any(full.startswith(f"{planned}.") for planned in styles):
                raise ConfigError(
                    f"train.tp_size: transformers' plan for {type(backbone).__name__} says nothing of {full}; upgrade "
                    f"transformers, or {_LEAVE_OUT}"
                )
