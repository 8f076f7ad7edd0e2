"""Tree attention on a CPU: dense pieces of torch's own flash kernel, merged by their log-sum-exp.

For one query, attention over two disjoint sets of keys with outputs ``o1, o2`` and log-sum-exps ``l1, l2`` is
``(exp(l1) o1 + exp(l2) o2) / (exp(l1) + exp(l2))``, which is ``lerp(o1, o2, sigmoid(l2 - l1))``. Backwards, the kernel
needs only the merged output and log-sum-exp to give each piece's exact share of the gradients. No mask, no padding and
no repeated keys: grouped query heads are a view.

A learned sink is one more key with its own logit and a value of zero, so it merges in the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .layout import AttentionLayout, Piece, Pieces, Visible

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class CpuBackend:
    """Pieces of the CPU flash kernel; see the module's docstring."""

    name = "cpu"
    supports_softcap = False

    @torch.compiler.disable
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
        if softcap is not None:
            raise NotImplementedError("the CPU kernel has no softcap")
        head_dim = query.shape[-1]
        narrow_by = head_dim - value.shape[-1]
        if narrow_by:  # latent attention has narrower values; the kernel wants one width
            value = torch.nn.functional.pad(value, (0, narrow_by))
        out = _PieceAttention.apply(query, key, value, sinks, layout, window, scale)
        return out[..., : head_dim - narrow_by] if narrow_by else out


class _PieceAttention(torch.autograd.Function):
    """q [1, H, Q, D], k and v [1, K, P + Q, D], sinks [H] or None -> [1, Q, H, D]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        layout: AttentionLayout,
        window: int | None,
        scale: float,
    ) -> Tensor:
        num_kv_heads = key.shape[1]
        pieces = layout.pieces(window)
        q, k, v = _grouped(query, num_kv_heads), key[0], value[0]
        masks = _Masks(layout, window, query.dtype)
        accumulate = torch.promote_types(query.dtype, torch.float32)
        # [Q, H, D] in memory, so that the result needs no copy for the output projection.
        out = query.new_empty(q.shape[2], q.shape[0] * q.shape[1], q.shape[3], dtype=accumulate)
        merged = _as_heads(out, num_kv_heads)
        lse = query.new_empty(q.shape[:3], dtype=accumulate)
        for piece in pieces.own:
            rows = slice(piece.query_start, piece.query_stop)
            merged[:, :, rows], lse[:, :, rows] = _attend(piece, q, k, v, masks, scale)
        for piece in pieces.above:
            rows = slice(piece.query_start, piece.query_stop)
            more, more_lse = _attend(piece, q, k, v, masks, scale)
            held = lse[:, :, rows]
            merged[:, :, rows].lerp_(more.to(accumulate), torch.sigmoid(more_lse - held).unsqueeze(-1))
            lse[:, :, rows] = torch.logaddexp(held, more_lse)
        if sinks is not None:
            sink = sinks.detach().to(accumulate).view(num_kv_heads, -1, 1)
            merged.mul_(torch.sigmoid(lse - sink).unsqueeze(-1))
            lse = torch.logaddexp(lse, sink)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, sinks, out, lse)
        ctx.layout, ctx.window, ctx.scale = layout, window, scale
        return out.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks, out, lse = ctx.saved_tensors
        num_kv_heads = key.shape[1]
        pieces: Pieces = ctx.layout.pieces(ctx.window)
        q, k, v = _grouped(query, num_kv_heads), key[0], value[0]
        o, go = _as_heads(out, num_kv_heads), _as_heads(grad_out[0].to(out.dtype), num_kv_heads)
        masks = _Masks(ctx.layout, ctx.window, query.dtype)
        grad_query = torch.empty(out.shape, dtype=lse.dtype)
        gq = _as_heads(grad_query, num_kv_heads)
        gk, gv = torch.zeros_like(k, dtype=lse.dtype), torch.zeros_like(v, dtype=lse.dtype)
        for number, piece in enumerate((*pieces.own, *pieces.above)):
            rows, keys = slice(piece.query_start, piece.query_stop), slice(piece.key_start, piece.key_stop)
            shares = _backward(
                go[:, :, rows],
                q[:, :, rows],
                _shared(k[:, keys], q.shape[1]),
                _shared(v[:, keys], q.shape[1]),
                o[:, :, rows],
                lse[:, :, rows],
                0.0,
                piece.visible is Visible.CAUSAL,
                attn_mask=masks.of(piece),
                scale=ctx.scale,
            )
            gk[:, keys] += shares[1].sum(1, dtype=lse.dtype)
            gv[:, keys] += shares[2].sum(1, dtype=lse.dtype)
            if number < len(pieces.own):
                gq[:, :, rows] = shares[0]
            else:
                gq[:, :, rows] += shares[0]
        grad_sinks = None
        if sinks is not None:
            sink = sinks.to(lse.dtype).view(num_kv_heads, -1, 1)
            # The sink's value is zero, so its logit's gradient is its probability times minus rowsum(grad * out).
            share = torch.exp(sink - lse) * (go.to(lse.dtype) * o.to(lse.dtype)).sum(-1)
            grad_sinks = -share.sum(-1).reshape(-1).to(sinks.dtype)
        grads = (grad_query.to(query.dtype).transpose(0, 1), gk.to(key.dtype), gv.to(value.dtype))
        return (*(grad.unsqueeze(0) for grad in grads), grad_sinks, None, None, None)


class _Masks:
    """Additive masks of the pieces whose visibility depends on the window, made when they are needed."""

    def __init__(self, layout: AttentionLayout, window: int | None, dtype: torch.dtype) -> None:
        self._window = window
        self._dtype = dtype
        self._depth = torch.from_numpy(layout.depth)
        self._key_depth = torch.from_numpy(layout.key_depth)

    def of(self, piece: Piece) -> Tensor | None:
        """Return [1, 1, queries, keys] with -inf at what a query does not see; None when the kernel needs none."""
        if piece.visible is not Visible.BY_DEPTH:
            return None
        query = self._depth[piece.query_start : piece.query_stop, None]
        key = self._key_depth[None, piece.key_start : piece.key_stop]
        hidden = (key > query) | (query - key >= self._window)
        return torch.zeros(hidden.shape, dtype=self._dtype).masked_fill_(hidden, float("-inf"))[None, None]


def _attend(piece: Piece, q: Tensor, k: Tensor, v: Tensor, masks: _Masks, scale: float) -> tuple[Tensor, Tensor]:
    """Return a piece's output [K, G, queries, D] and log-sum-exp [K, G, queries]."""
    keys = slice(piece.key_start, piece.key_stop)
    mask = masks.of(piece)
    out, lse = _forward(
        q[:, :, piece.query_start : piece.query_stop],
        _shared(k[:, keys], q.shape[1]),
        _shared(v[:, keys], q.shape[1]),
        0.0,
        piece.visible is Visible.CAUSAL,
        attn_mask=mask,
        scale=scale,
    )
    if mask is not None:  # the kernel gives a query that sees nothing a log-sum-exp of 0
        lse = lse.masked_fill(torch.isneginf(mask[0, 0]).all(-1), float("-inf"))
    return out, lse


def _grouped(query: Tensor, num_kv_heads: int) -> Tensor:
    """View [1, H, Q, D] as [K, G, Q, D]: the query heads of each key head."""
    return query[0].unflatten(0, (num_kv_heads, -1))


def _as_heads(rows: Tensor, num_kv_heads: int) -> Tensor:
    """View [Q, H, D] as [K, G, Q, D]."""
    return rows.transpose(0, 1).unflatten(0, (num_kv_heads, -1))


def _shared(heads: Tensor, group_size: int) -> Tensor:
    """View [K, N, D] as [K, G, N, D], the same for each query head of a group."""
    return heads.unsqueeze(1).expand(-1, group_size, -1, -1)
