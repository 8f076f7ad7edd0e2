"""Every backend computes attention to exactly a token's ancestors, forwards and backwards."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.batching import Chunk, Forest, make_example, merge
from understudy.batching.chunks import cut
from understudy.train.attention import AttentionLayout, Backend, choose_backend
from understudy.train.attention.cpu import CpuBackend
from understudy.train.attention.dense import DenseBackend
from understudy.train.attention.flex import FlexBackend, mask_function
from understudy.train.attention.layout import Visible
from understudy.types import TokenTreeBuilder

HEADS, KEY_HEADS, WIDTH = 4, 2, 8
windows = st.sampled_from((None, 1, 2, 5, 20, 1000))


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Forest, list[Chunk]]:
    """A forest of up to six rows of 0s and 1s, cut to a random size."""
    builder = TokenTreeBuilder()
    for _ in range(draw(st.integers(1, 6))):
        prefix = [0] * draw(st.integers(0, 12))
        builder.insert(prefix + draw(st.lists(st.integers(0, 1), min_size=2, max_size=30)))
    tree = builder.build()
    example = make_example(tree, {"term": np.ones(tree.num_tokens)})
    assert example is not None
    forest = merge([example])
    return forest, cut(forest, draw(st.sampled_from((1, 4, 16, 1000))))


def own_tokens(chunk: Chunk) -> list[int]:
    return [token for part in chunk.slices for token in range(part.start, part.stop)]


def past_tokens(all_chunks: list[Chunk], chunk: Chunk) -> list[int]:
    return [token for part in chunk.path for token in own_tokens(all_chunks[part.chunk])[part.start : part.stop]]


@given(chunks(), windows)
def test_the_dense_mask_is_who_descends_from_whom(made: tuple[Forest, list[Chunk]], window: int | None) -> None:
    forest, all_chunks = made
    for chunk in all_chunks:
        own = own_tokens(chunk)
        keys = past_tokens(all_chunks, chunk) + own
        mask = AttentionLayout.of(forest, chunk).dense_mask(window)
        assert mask.shape == (len(own), len(keys))
        for row, query in enumerate(own):
            for column, key in enumerate(keys):
                descends = key <= query < forest.end[key]
                within = window is None or forest.depth[query] - forest.depth[key] < window
                assert mask[row, column] == (descends and within)


@given(chunks(), windows)
def test_pieces_hold_every_visible_pair_once(made: tuple[Forest, list[Chunk]], window: int | None) -> None:
    forest, all_chunks = made
    for chunk in all_chunks:
        layout = AttentionLayout.of(forest, chunk)
        mask, depth = layout.dense_mask(window), layout.key_depth
        pieces = layout.pieces(window)
        seen: Counter[tuple[int, int]] = Counter()
        for piece in (*pieces.own, *pieces.above):
            for query in range(piece.query_start, piece.query_stop):
                for key in range(piece.key_start, piece.key_stop):
                    back = int(layout.depth[query] - depth[key])
                    causal = key - piece.key_start <= query - piece.query_start
                    visible = {
                        Visible.ALL: True,
                        Visible.CAUSAL: causal,
                        Visible.BY_DEPTH: window is not None and 0 <= back < window,
                    }[piece.visible]
                    if visible:
                        seen[query, key] += 1
        assert seen == Counter({(int(q), int(k)): 1 for q, k in np.argwhere(mask)})
        rows = [query for piece in pieces.own for query in range(piece.query_start, piece.query_stop)]
        assert rows == list(range(layout.num_queries))


def random_inputs(layout: AttentionLayout, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Return query, key, value and sinks."""
    torch.manual_seed(0)
    num_keys = layout.num_past + layout.num_queries
    shapes = [(1, HEADS, layout.num_queries, WIDTH), *[(1, KEY_HEADS, num_keys, WIDTH)] * 2, (HEADS,)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def outcome(backend: Backend, layout: AttentionLayout, window: int | None, sinks: bool) -> list[torch.Tensor]:
    """Return the output and the gradients of everything that went in."""
    query, key, value, sink = random_inputs(layout)
    out = backend.attend(query, key, value, layout, scale=0.4, window=window, sinks=sink if sinks else None)
    inputs = [query, key, value, *([sink] if sinks else [])]
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


@settings(deadline=None, max_examples=60)
@given(chunks(), windows, st.booleans())
def test_the_cpu_backend_equals_the_dense_one(
    made: tuple[Forest, list[Chunk]], window: int | None, sinks: bool
) -> None:
    forest, all_chunks = made
    for chunk in all_chunks[-3:]:
        layout = AttentionLayout.of(forest, chunk)
        found = outcome(CpuBackend(), layout, window, sinks)
        expected = outcome(DenseBackend(), layout, window, sinks)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(chunks(), windows)
def test_the_flex_mask_function_is_the_dense_mask(made: tuple[Forest, list[Chunk]], window: int | None) -> None:
    forest, all_chunks = made
    for chunk in all_chunks[-3:]:
        layout = AttentionLayout.of(forest, chunk)
        query = torch.arange(layout.num_queries)[:, None]
        key = torch.arange(layout.num_past + layout.num_queries)[None, :]
        visible = mask_function(layout, window, torch.device("cpu"))(torch.tensor(0), torch.tensor(0), query, key)
        assert np.array_equal(visible.numpy(), layout.dense_mask(window))


@pytest.fixture
def a_layout() -> AttentionLayout:
    """A chunk with past keys and branches of its own."""
    builder = TokenTreeBuilder()
    for tail in ([1] * 20, [2] * 9 + [3] * 30, [2] * 9 + [4] * 5):
        builder.insert([0] * 40 + tail)
    tree = builder.build()
    example = make_example(tree, {"term": np.ones(tree.num_tokens)})
    assert example is not None
    forest = merge([example])
    layouts = [AttentionLayout.of(forest, chunk) for chunk in cut(forest, 60)]
    return max(layouts, key=lambda layout: layout.num_past * len(set(layout.end.tolist())))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 7])
def test_the_flex_backend_equals_the_dense_one_forwards(
    a_layout: AttentionLayout, window: int | None, sinks: bool, softcap: float | None
) -> None:
    query, key, value, sink = (tensor.detach() for tensor in random_inputs(a_layout, torch.float32))
    results = [
        backend.attend(
            query, key, value, a_layout, scale=0.4, window=window, sinks=sink if sinks else None, softcap=softcap
        )
        for backend in (FlexBackend(), DenseBackend())
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_values_may_be_narrower_than_keys(a_layout: AttentionLayout) -> None:
    query, key, value, _ = (tensor.detach() for tensor in random_inputs(a_layout))
    value = value[..., :5].clone().requires_grad_()
    gradients = []
    for backend in (CpuBackend(), DenseBackend()):
        out = backend.attend(query, key, value, a_layout, scale=0.4)
        assert out.shape[-1] == 5
        gradients.append(torch.autograd.grad(out.square().sum(), value)[0])
    torch.testing.assert_close(*gradients)


def test_in_bfloat16_pieces_are_as_exact_as_one_kernel(a_layout: AttentionLayout) -> None:
    query, key, value, _ = (tensor.detach() for tensor in random_inputs(a_layout, torch.float32))
    exact = DenseBackend().attend(query, key, value, a_layout, scale=0.4)
    low = [tensor.bfloat16() for tensor in (query, key, value)]
    found = CpuBackend().attend(*low, a_layout, scale=0.4)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2e-2, atol=2e-2)


def test_a_cpu_gets_the_cpu_backend() -> None:
    assert isinstance(choose_backend(torch.device("cpu")), CpuBackend)
