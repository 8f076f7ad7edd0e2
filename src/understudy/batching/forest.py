"""The forest: the merged tokens of several examples, and what is predicted where.

Invariants kept by construction:

- The ids along the way from a root to a token are the ids that the token's examples have there.
- Tokens lie in depth-first order with the heaviest child first, so a token's heaviest path, and every subtree, is a
  contiguous slice. Attention over a forest then needs two dense pieces for each such path, however many branches leave
  it.
- The weights of each (position, label) are the sums of its examples' weights, and are kept apart by example and term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.types import TokenTree, TokenTreeBuilder
from understudy.types.tokens import Ints

from .examples import Doubles, Example, runs_of


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Unique (position, label) pairs, sorted by position, and the contributions that they are made of.

    Args:
        position: [N] token whose logits predict.
        label: [N] token id to predict.
        entry_target, entry_term, entry_example: [E] what each contribution belongs to; the example within the forest.
        entry_weight: [E] its weight.
    """

    position: Ints
    label: Ints
    entry_target: Ints
    entry_term: Ints
    entry_example: Ints
    entry_weight: Doubles

    def select(self, targets: Ints) -> Targets:
        """Return only these targets (sorted indices), renumbered, with their contributions."""
        renumbered = np.full(len(self.position), -1, np.int32)
        renumbered[targets] = np.arange(len(targets), dtype=np.int32)
        kept = renumbered[self.entry_target] >= 0
        return Targets(
            position=self.position[targets],
            label=self.label[targets],
            entry_target=renumbered[self.entry_target[kept]],
            entry_term=self.entry_term[kept],
            entry_example=self.entry_example[kept],
            entry_weight=self.entry_weight[kept],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Merged tokens in depth-first order, heaviest child first.

    Args:
        ids: [T] token ids.
        parent: [T] index of the token before, -1 at a root.
        depth: [T] position ids.
        end: [T] one past the last token of the subtree: u descends from t exactly when ``t < u < end[t]``.
        targets: what is predicted where.
        names, sources: [examples] of each example.
        term_names: the terms of the objective.
        num_row_tokens: tokens of the same supervision as separate rows.
    """

    ids: Ints
    parent: Ints
    depth: Ints
    end: Ints
    targets: Targets
    names: tuple[str, ...]
    sources: Ints
    term_names: tuple[str, ...]
    num_row_tokens: int

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def num_terms(self) -> int:
        return len(self.term_names)

    def as_example(self, name: str = "") -> Example:
        """Return the whole forest as one example of source 0, with its examples' weights added up."""
        targets = self.targets
        weights = np.zeros((self.num_terms, len(targets.position)))
        np.add.at(weights, (targets.entry_term, targets.entry_target), targets.entry_weight)
        run_start, run_parent = runs_of(self.parent)
        return Example(
            name=name,
            source=0,
            ids=self.ids,
            run_start=run_start,
            run_parent=run_parent,
            position=targets.position,
            label=targets.label,
            weights=weights,
            num_row_tokens=self.num_row_tokens,
            term_names=self.term_names,
        )

    def weight_sums(self) -> Doubles:
        """Return [terms] the sums of the contributions' absolute weights."""
        return np.bincount(
            self.targets.entry_term, weights=np.abs(self.targets.entry_weight), minlength=self.num_terms
        ).astype(np.float64)


def merge(examples: Sequence[Example]) -> Forest:
    """Merge examples so that every shared prefix stands once.

    Raises:
        ValueError: there are no examples, or they do not have the same terms.
    """
    builder = TokenTreeBuilder()
    inserted: list[list[int]] = []
    for example in examples:
        handles: list[int] = []
        for start, stop, above in example.runs():
            handles.append(builder.insert(example.ids[start:stop], after=handles[above] if above >= 0 else None))
        inserted.append(handles)
    tree = builder.build()
    new_index, parent, end = _heaviest_first(tree)
    old_index = np.argsort(new_index)
    locations = [
        new_index[_locate(tree, example, handles)] for example, handles in zip(examples, inserted, strict=True)
    ]
    return _forest(examples, locations, tree.ids[old_index], parent, tree.depth[old_index], end)


def concatenate(examples: Sequence[Example]) -> Forest:
    """Lay separate rows side by side without sharing anything. Every example must be a single run.

    Raises:
        ValueError: an example branches; see `separate_rows`.
    """
    if any(len(example.run_start) > 1 for example in examples):
        raise ValueError("a row must not branch")
    lengths = np.array([example.num_tokens for example in examples])
    stops = np.cumsum(lengths)
    starts = stops - lengths
    locations = [np.arange(a, b, dtype=np.int32) for a, b in zip(starts, stops, strict=True)]
    ids = np.concatenate([example.ids for example in examples])
    depth = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    parent = np.arange(-1, len(ids) - 1, dtype=np.int32)
    parent[starts] = -1
    end = np.repeat(stops, lengths).astype(np.int32)
    return _forest(examples, locations, ids, parent, depth, end)


def separate_rows(example: Example) -> list[Example]:
    """Cut an example into one single-run example for each root-to-leaf path; each target is in exactly one."""
    runs = example.runs()
    leaves = sorted(set(range(len(runs))) - set(example.run_parent.tolist()))
    carried = np.zeros(example.num_tokens, bool)
    rows: list[Example] = []
    for leaf in leaves:
        path: list[Ints] = []
        run = leaf
        while run >= 0:
            start, stop, run = runs[run]
            path.append(np.arange(start, stop, dtype=np.int32))
        tokens = np.concatenate(path[::-1])
        on_path = np.full(example.num_tokens, -1, np.int32)
        on_path[tokens] = np.arange(len(tokens), dtype=np.int32)
        chosen = np.flatnonzero((on_path[example.position] >= 0) & ~carried[example.position])
        carried[tokens] = True
        rows.append(
            Example(
                name=example.name,
                source=example.source,
                ids=example.ids[tokens],
                run_start=np.zeros(1, np.int32),
                run_parent=np.full(1, -1, np.int32),
                position=on_path[example.position[chosen]],
                label=example.label[chosen],
                weights=example.weights[:, chosen],
                num_row_tokens=len(tokens) + 1,
                term_names=example.term_names,
            )
        )
    return rows


def _locate(tree: TokenTree, example: Example, handles: Sequence[int]) -> Ints:
    """Return [tokens of the example] where each lies in the tree."""
    located = np.empty(example.num_tokens, np.int32)
    for (start, stop, _), handle in zip(example.runs(), handles, strict=True):
        node = tree.sequences[handle][0]
        while stop > start:
            first, last = int(tree.node_start[node]), int(tree.node_stop[node])
            count = min(stop - start, last - first)
            located[stop - count : stop] = np.arange(last - count, last, dtype=np.int32)
            stop -= count
            node = int(tree.node_parent[node])
    return located


def _heaviest_first(tree: TokenTree) -> tuple[Ints, Ints, Ints]:
    """Reorder a tree so that the child with the most tokens comes first; return (new index of each token, parent, end).

    Parent and end are given in the new order. Equal children keep their order, so the result is determined.
    """
    num_nodes = len(tree.node_start)
    size = tree.end[tree.node_start] - tree.node_start
    children: list[list[int]] = [[] for _ in range(num_nodes + 1)]  # the last entry holds the roots
    for node in range(num_nodes):
        children[tree.node_parent[node]].append(node)
    for siblings in children:
        siblings.sort(key=lambda node: -size[node])
    new_index = np.empty(tree.num_tokens, np.int32)
    end = np.empty(tree.num_tokens, np.int32)
    position = 0
    stack = children[-1][::-1]
    while stack:
        node = stack.pop()
        start, stop = int(tree.node_start[node]), int(tree.node_stop[node])
        new_index[start:stop] = np.arange(position, position + stop - start)
        end[position : position + stop - start] = position + size[node]
        position += stop - start
        stack.extend(reversed(children[node]))
    parent = np.empty(tree.num_tokens, np.int32)
    parent[new_index] = np.where(tree.parent >= 0, new_index[tree.parent], -1)
    return new_index, parent, end


def _forest(
    examples: Sequence[Example], locations: Sequence[Ints], ids: Ints, parent: Ints, depth: Ints, end: Ints
) -> Forest:
    """Join the examples' targets, given where each example's tokens lie."""
    if len({example.term_names for example in examples}) != 1:
        raise ValueError("examples must have the same terms")
    position = np.concatenate([at[example.position] for example, at in zip(examples, locations, strict=True)])
    label = np.concatenate([example.label for example in examples])
    pairs, target = np.unique(np.stack([position, label]), axis=1, return_inverse=True)
    weights = np.concatenate([example.weights for example in examples], axis=1)
    of_example = np.repeat(np.arange(len(examples), dtype=np.int32), [len(example.label) for example in examples])
    term, entry = np.nonzero(weights)
    targets = Targets(
        position=pairs[0].astype(np.int32),
        label=pairs[1].astype(np.int32),
        entry_target=target[entry].astype(np.int32),
        entry_term=term.astype(np.int32),
        entry_example=of_example[entry],
        entry_weight=weights[term, entry],
    )
    return Forest(
        ids=ids,
        parent=parent,
        depth=depth,
        end=end,
        targets=targets,
        names=tuple(example.name for example in examples),
        sources=np.array([example.source for example in examples], np.int32),
        term_names=examples[0].term_names,
        num_row_tokens=sum(example.num_row_tokens for example in examples),
    )
