"""Activations that wait in the CPU's memory for their backward pass.

What autograd keeps between forward and backward is copied to page-locked memory as it is kept, and back when it is
asked for. Copies go in the order of the computation, on its own stream, so the CPU does not wait for them. Weights stay
where they are: autograd keeps them too, but they are on the device anyway. So do the copies that autocast makes of
them: a cast is followed back to its weight, and that of a frozen one, which leads nowhere, is told by its shape.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

_MIN_BYTES = 64 * 2**10
"""Smaller tensors are not worth a copy."""

_OF_A_CAST = frozenset({"ToCopyBackward0", "TBackward0", "TransposeBackward0"})
"""What autograd calls the way from a weight to the copy of it that a product takes."""


class _Away(NamedTuple):
    """A tensor in the CPU's memory, and where it was."""

    copy: Tensor
    device: torch.device


class ActivationOffloading:
    """A context for forward passes; their backward passes may run outside of it.

    Args:
        model: its parameters and buffers are left where they are.
        device_type: what is brought away is on devices of this type.
        min_bytes: smaller tensors stay.
    """

    def __init__(self, model: nn.Module, *, device_type: str, min_bytes: int = _MIN_BYTES) -> None:
        self.num_bytes = 0
        """How much was brought away so far."""
        self._model = model
        self._device_type = device_type
        self._min_bytes = min_bytes
        self._stays: set[int] = set()
        self._shapes: set[torch.Size] = set()  # of frozen matrices
        self._hooks: list[torch.autograd.graph.saved_tensors_hooks] = []

    def __enter__(self) -> None:
        # Looked up anew each time, because an optimiser or a quantiser may have put others in their place.
        held = (*self._model.parameters(), *self._model.buffers())
        self._stays = {tensor.untyped_storage().data_ptr() for tensor in held}
        frozen = [tensor for tensor in held if tensor.ndim >= 2 and not tensor.requires_grad]
        self._shapes = {m.shape for m in frozen} | {m.transpose(-2, -1).shape for m in frozen}
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
        hooks.__enter__()
        self._hooks.append(hooks)

    def __exit__(self, *error: object) -> None:
        self._hooks.pop().__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor | _Away:
        # A hook that returned the very tensor would let an operation's output hold the operation that holds it.
        if (
            tensor.device.type != self._device_type
            or tensor.nbytes < self._min_bytes
            or tensor.untyped_storage().data_ptr() in self._stays
            or self._is_cast_of_weight(tensor)
        ):
            return tensor.detach()
        is_locked = self._device_type != "cpu"
        copy = torch.empty_like(tensor, device="cpu", pin_memory=is_locked)
        copy.copy_(tensor, non_blocking=is_locked)
        self.num_bytes += copy.nbytes
        return _Away(copy, tensor.device)

    def _is_cast_of_weight(self, tensor: Tensor) -> bool:
        if not tensor.requires_grad:
            return tensor.shape in self._shapes
        node = tensor.grad_fn
        while node is not None and node.name() in _OF_A_CAST:
            node = node.next_functions[0][0]
        weight = getattr(node, "variable", None)
        return weight is not None and weight.untyped_storage().data_ptr() in self._stays


def _unpack(packed: Tensor | _Away) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed.copy.to(packed.device, non_blocking=True)
