"""Small examples and models for tests that need no real data."""

from __future__ import annotations

import numpy as np
import torch

from understudy.batching import Example, Layout, Planner, Sampler, Source, StepPlan, make_example
from understudy.models.tiny import tiny_model
from understudy.types import Span, SpanKind, TokenTreeBuilder

VOCAB = 50
TERMS = ("behavioral_cloning", "world_model")


def random_example(seed: int, *, num_rows: int = 2, prefix: int = 6) -> Example:
    """Rows that share a prefix; the first term weighs what comes after it and the second some of it."""
    rng = np.random.default_rng(seed)
    builder = TokenTreeBuilder()
    for _ in range(num_rows):
        tail = rng.integers(0, VOCAB, int(rng.integers(3, 25))).tolist()
        ids = list(range(prefix)) + tail
        builder.insert(ids, [Span(SpanKind.ACTION, 0, prefix, len(ids))])
    tree = builder.build()
    weights = dict(zip(TERMS, (tree.action_weights(), (tree.depth % 3 == 1).astype(float)), strict=True))
    example = make_example(tree, weights, name=f"rows.jsonl:{seed}")
    assert example is not None
    return example


def planner(
    num_examples: int, *, batch_size: int, world_size: int = 1, shuffle: bool = True, layout: Layout = "depth_first"
) -> Planner:
    """Plan over two sources of which the second holds a third of the examples; one source if there are too few."""
    examples = [random_example(seed) for seed in range(num_examples)]
    cut = num_examples - num_examples // 3
    sources = [Source("first", examples[:cut])]
    if cut < num_examples:
        sources.append(Source("second", examples[cut:]))
    sampler = Sampler([len(s.examples) for s in sources], batch_size=batch_size, seed=0, shuffle=shuffle)
    return Planner(sources, sampler, layout=layout, max_tokens_per_batch=40, world_size=world_size)


def plan(num_examples: int = 6) -> StepPlan:
    """Return one step over everything."""
    return planner(num_examples, batch_size=num_examples).plan(0)


def model(architecture: str = "qwen3", **settings: object) -> torch.nn.Module:
    return tiny_model(architecture, vocab_size=VOCAB, hidden_size=32, **settings).train()
