"""Attention over trees: each token sees its ancestors and nothing else.

One description of who sees whom (`layout`), and backends that compute it: `cpu` (flash pieces merged by log-sum-exp),
`flex` (FlexAttention on GPUs), `dense` (a mask; the reference for tests). All are exact; `choose_backend` takes the one
that the hardware runs well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .layout import AttentionLayout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["AttentionLayout", "Backend", "choose_backend"]


class Backend(Protocol):
    """Computes attention over a chunk."""

    name: str
    supports_softcap: bool

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
        """Return [1, Q, H, Dv] the attention output.

        Args:
            query: [1, H, Q, D].
            key, value: [1, K, P + Q, D], those of the path above first. H is a multiple of K.
            scale: factor of the scores.
            window: sliding window in tokens; None for full attention.
            sinks: [H] a learned logit for each head that takes probability and adds nothing.
            softcap: scores s become ``softcap * tanh(s / softcap)``.
        """


def choose_backend(device: torch.device) -> Backend:
    """Return the backend for a device."""
    if device.type == "cuda":
        from .flex import FlexBackend

        return FlexBackend()
    from .cpu import CpuBackend

    return CpuBackend()
