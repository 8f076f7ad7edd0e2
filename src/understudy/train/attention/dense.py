"""Tree attention with a dense mask, spelled out: the reference that the other backends are tested against.

Memory grows with queries times keys, so it is for tests and small checks only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import AttentionLayout


class DenseBackend:
    """Softmax over all keys, with what is not visible masked out."""

    name = "dense"
    supports_softcap = True

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
        group_size = query.shape[1] // key.shape[1]
        key, value = (heads.repeat_interleave(group_size, dim=1) for heads in (key, value))
        scores = query @ key.transpose(2, 3) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        visible = torch.from_numpy(layout.dense_mask(window)).to(query.device)
        scores = scores.masked_fill(~visible, float("-inf"))
        if sinks is not None:
            sink = sinks.view(1, -1, 1, 1).expand(1, -1, scores.shape[2], 1)
            scores = torch.cat([scores, sink.to(scores.dtype)], dim=-1)
        probabilities = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        out = probabilities[..., : key.shape[2]].to(value.dtype) @ value
        return out.transpose(1, 2)
