"""Examples: what a sampler draws. One trajectory's tokens with what is predicted where, and for how much.

Only tokens that matter are kept: one is an input only if something that it precedes is supervised. What follows the
last supervised token of a path changes no loss and no gradient, and the last supervised token itself is only ever a
label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.types import TokenTree
from understudy.types.tokens import Ints

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """The input tokens of one trajectory in depth-first order, as runs, and its targets.

    Args:
        name: where it came from, for messages, e.g. ``file.jsonl:12``.
        source: index of its data source in the mix.
        ids: [T] input token ids.
        run_start: [R] index of each run's first token; a run ends where the next begins.
        run_parent: [R] the run that each run continues at its end, -1 for a root; always an earlier one.
        position: [N] the input token whose logits predict target n.
        label: [N] the token id to predict there. One position has several labels where the tree branches.
        weights: [terms, N] weight of each target in each term.
        num_row_tokens: what the same supervision costs in tokens as separate rows, one for each root-to-leaf path.
        term_names: the terms, in the order of `weights`.
    """

    name: str
    source: int
    ids: Ints
    run_start: Ints
    run_parent: Ints
    position: Ints
    label: Ints
    weights: Doubles
    num_row_tokens: int
    term_names: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def longest_path(self) -> int:
        """Tokens of the longest root-to-leaf path."""
        lengths: list[int] = []
        for start, stop, above in self.runs():
            lengths.append(stop - start + (lengths[above] if above >= 0 else 0))
        return max(lengths)

    def runs(self) -> list[tuple[int, int, int]]:
        """Return (start, stop, parent run) of every run."""
        starts = self.run_start.tolist()
        return list(zip(starts, [*starts[1:], len(self.ids)], self.run_parent.tolist(), strict=True))


def make_example(
    tree: TokenTree, weights: Mapping[str, NDArray[Any]], *, name: str = "", source: int = 0
) -> Example | None:
    """Return the example for a tree and its weights per term ([T] each); None when nothing is supervised.

    A first token has nothing before it that could predict it, so its weight does not count, as in every trainer that
    shifts labels.

    Raises:
        ValueError: a weight array does not have one value for each token.
    """
    for term, values in weights.items():
        if values.shape != (tree.num_tokens,):
            raise ValueError(f"weights of {term} have shape {values.shape} for {tree.num_tokens} tokens")
    stacked = np.array([*weights.values()], np.float64)
    supervised = stacked.any(axis=0) & (tree.parent >= 0)
    if not supervised.any():
        return None
    counted = np.concatenate([[0], np.cumsum(supervised)])
    below = counted[tree.end] - counted[np.arange(tree.num_tokens) + 1]
    kept = np.flatnonzero(below)
    renumbered = np.full(tree.num_tokens + 1, -1, np.int32)  # the extra last entry maps parent -1 to -1
    renumbered[kept] = np.arange(len(kept), dtype=np.int32)
    parent = renumbered[tree.parent[kept]]
    targets = np.flatnonzero(supervised)
    run_start, run_parent = runs_of(parent)
    return Example(
        name=name,
        source=source,
        ids=tree.ids[kept],
        run_start=run_start,
        run_parent=run_parent,
        position=renumbered[tree.parent[targets]],
        label=tree.ids[targets],
        weights=stacked[:, targets],
        num_row_tokens=_num_row_tokens(parent, tree.depth[kept]),
        term_names=tuple(weights),
    )


def runs_of(parent: Ints) -> tuple[Ints, Ints]:
    """Cut tokens in depth-first order into runs without a branch; return (first token, run continued) of each."""
    num_children = np.bincount(parent[parent >= 0], minlength=len(parent))
    chained = np.zeros(len(parent), bool)
    chained[1:] = (parent[1:] == np.arange(len(parent) - 1)) & (num_children[:-1] == 1)
    start = np.flatnonzero(~chained)
    run_of = np.cumsum(~chained) - 1
    above = parent[start]
    return start.astype(np.int32), np.where(above >= 0, run_of[above], -1).astype(np.int32)


def _num_row_tokens(parent: Ints, depth: Ints) -> int:
    """Return the tokens of one row for each root-to-leaf path: its input tokens and a last label."""
    is_leaf = np.ones(len(parent), bool)
    is_leaf[parent[parent >= 0]] = False
    return int((depth[is_leaf] + 2).sum())
