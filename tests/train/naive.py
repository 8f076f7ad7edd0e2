"""The naive trainer: every call is a row of its own, run through the plain model; no tree, no packing, no fused loss.

It shares no code with what it checks: weights are read off the spans here, and the loss is torch's cross entropy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from understudy.types import SpanKind

from .tau_bench import Rendered

Row = tuple[np.ndarray, dict[str, np.ndarray]]  # ids [T], weight of each token per term


def rows_of(items: Sequence[Rendered]) -> Iterator[Row]:
    """Yield one row for each rendered call, with the weight of its tokens in each term."""
    for item in items:
        for index, (_, spans) in enumerate(item.tree.sequences):
            ids = item.tree.sequence_ids(index)
            weights: dict[str, np.ndarray] = defaultdict(partial(np.zeros, len(ids)))
            for span in spans:
                parent = item.trajectory.turns[span.turn].parent
                if span.kind == SpanKind.ACTION:
                    weights["behavioral_cloning"][span.start : span.stop] += span.weight
                elif parent is not None and item.trajectory.turns[parent].action is not None:
                    weights["world_model"][span.start : span.stop] += span.weight
            if weights:
                yield ids, dict(weights)


def token_losses(model: nn.Module, ids: np.ndarray) -> Tensor:
    """Return [T - 1] the nll of every token but the first, from the model's own logits."""
    tokens = torch.from_numpy(ids.astype(np.int64))
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(logits, tokens[1:], reduction="none")


def naive_step(model: nn.Module, items: Sequence[Rendered], coefficients: Mapping[str, float]) -> float:
    """Run all rows and leave the gradients of the step on the parameters; return the loss."""
    rows = list(rows_of(items))
    totals = {term: sum(w[term][1:].sum() for _, w in rows if term in w) for term in coefficients}
    loss = 0.0
    for ids, weights in rows:
        share = sum(coefficients[term] / totals[term] * weights[term] for term in coefficients if term in weights)
        if np.ndim(share) == 0 or not share[1:].any():
            continue
        row_loss = (token_losses(model, ids) * torch.from_numpy(share[1:])).sum()
        row_loss.backward()
        loss += row_loss.item()
    return loss


def take_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients and clear them."""
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients


def relative_difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return |found - expected| / |expected| over all parameters as one vector; they must be the same parameters."""
    assert found.keys() == expected.keys()
    error = sum(float((found[name] - expected[name]).double().square().sum()) for name in expected)
    size = sum(float(expected[name].double().square().sum()) for name in expected)
    return (error / size) ** 0.5
