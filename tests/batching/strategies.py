"""Random weighted trees, and what they mean spelled out row by row."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from understudy.batching import Example, make_example
from understudy.types import Span, SpanKind, TokenTree, TokenTreeBuilder

TERMS = ("behavioral_cloning", "world_model")

# (ids up to and including the predicting token, label, term, source) -> weight
Meaning = dict[tuple[tuple[int, ...], int, int, int], float]


@dataclass(frozen=True)
class RandomExample:
    """A tree, its weights per term, and the example made of them (None when nothing is supervised)."""

    tree: TokenTree
    weights: dict[str, np.ndarray]
    example: Example | None


@st.composite
def random_examples(draw: st.DrawFn, source: int = 0) -> RandomExample:
    """A tree of one to four sequences over three token ids, so that prefixes often coincide."""
    builder = TokenTreeBuilder()
    for _ in range(draw(st.integers(1, 4))):
        ids = draw(st.lists(st.integers(0, 2), min_size=1, max_size=12))
        start = draw(st.integers(0, len(ids) - 1))
        kind = draw(st.sampled_from((SpanKind.ACTION, SpanKind.OBSERVATION)))
        builder.insert(ids, [Span(kind, 0, start, len(ids), draw(st.sampled_from((0.0, 0.5, 1.0, 2.0))))])
    tree = builder.build()
    some_weights = st.lists(st.sampled_from((0.0, 0.0, 0.25, 1.0)), min_size=tree.num_tokens, max_size=tree.num_tokens)
    weights = {term: np.array(draw(some_weights)) for term in TERMS}
    return RandomExample(tree, weights, make_example(tree, weights, name="row", source=source))


def meaning_of_trees(items: list[RandomExample]) -> Meaning:
    """Spell out every weighted token of every tree by its path, without any of the batching code."""
    meaning: Meaning = defaultdict(float)
    for item in items:
        source = item.example.source if item.example else 0
        for token in range(item.tree.num_tokens):
            before: list[int] = []
            above = int(item.tree.parent[token])
            while above >= 0:
                before.append(int(item.tree.ids[above]))
                above = int(item.tree.parent[above])
            for term, name in enumerate(TERMS):
                weight = float(item.weights[name][token])
                if weight and before:
                    meaning[tuple(before[::-1]), int(item.tree.ids[token]), term, source] += weight
    return dict(meaning)
