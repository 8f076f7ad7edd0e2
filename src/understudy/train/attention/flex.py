"""Tree attention on a GPU: FlexAttention with a block mask made from the layout's flat arrays.

The mask costs a few integers per token and the kernel skips blocks in which nothing is visible, so a tree costs what
its visible pairs cost. FlexAttention has no backward pass on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from .layout import AttentionLayout

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class FlexBackend:
    """FlexAttention, compiled where it runs on a GPU."""

    name = "flex"
    supports_softcap = True

    def __init__(self) -> None:
        # One layout serves all layers of a chunk, and its masks go when it goes.
        self._masks: WeakKeyDictionary[AttentionLayout, dict[int | None, BlockMask]] = WeakKeyDictionary()

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: AttentionLayout,
        *,
        scale: float,
        window: int | None = None,
        sinks: Tensor | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """See `Backend.attend`."""
        attention = _compiled(flex_attention) if query.is_cuda else flex_attention
        out, aux = attention(
            query,
            key,
            value,
            score_mod=None if softcap is None else _softcapped(softcap),
            block_mask=self._block_mask(layout, window, query.device),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            return_aux=AuxRequest(lse=True),
        )
        if sinks is not None:  # one more key with a value of zero
            out = out * torch.sigmoid(aux.lse - sinks.view(1, -1, 1)).unsqueeze(-1).to(out.dtype)
        return out.transpose(1, 2)

    def _block_mask(self, layout: AttentionLayout, window: int | None, device: torch.device) -> BlockMask:
        masks = self._masks.setdefault(layout, {})
        if window not in masks:
            # Uncompiled, it holds the whole mask for a moment, which on a GPU may be large.
            create = _compiled(create_block_mask) if device.type == "cuda" else create_block_mask
            function = mask_function(layout, window, device)
            num_keys = layout.num_past + layout.num_queries
            masks[window] = create(function, None, None, layout.num_queries, num_keys, device=str(device))
        return masks[window]


def mask_function(layout: AttentionLayout, window: int | None, device: torch.device) -> MaskFunction:
    """Return the mask function (batch, head, query, key) -> visible; keys count from the first past token."""
    depth, end, past = (torch.from_numpy(array).to(device) for array in (layout.depth, layout.end, layout.past))
    key_depth = torch.from_numpy(layout.key_depth).to(device)
    num_past = layout.num_past

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = key - num_past
        within = (own >= 0) & (own <= query) & (query < end[own.clamp(min=0)])
        seen = within | (key < past[query])
        return seen if window is None else seen & (depth[query] - key_depth[key] < window)

    return visible


def _softcapped(softcap: float) -> Callable[..., Tensor]:
    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


@lru_cache(maxsize=2)
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)
