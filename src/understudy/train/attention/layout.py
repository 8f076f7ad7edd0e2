"""Which keys each query of a chunk sees, as data. Numpy only; every backend reads this one description.

The keys of a chunk are the `num_past` tokens of the path above it, at depths 0, 1, 2, …, and then its own Q tokens.
Query q sees past key j when ``j < past[q]``, and own key k when ``k <= q < end[k]``. In a layer with a sliding window
of W it sees of these only keys less than W positions back: ``depth[q] - depth[key] < W``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from understudy.batching import Chunk, Forest
from understudy.types.tokens import Ints


class Visible(Enum):
    """How much of a piece is visible: all, the lower triangle, or what the depths say."""

    ALL = "all"
    CAUSAL = "causal"
    BY_DEPTH = "by_depth"


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries ``query_start:query_stop`` against keys ``key_start:key_stop``. Keys count from the first past token."""

    query_start: int
    query_stop: int
    key_start: int
    key_stop: int
    visible: Visible


@dataclass(frozen=True, slots=True)
class Pieces:
    """A chunk's attention as dense pieces. Every visible (query, key) pair is in exactly one.

    `own` covers every query exactly once, with the keys of its own run; `above` adds the keys of the runs above.
    """

    own: tuple[Piece, ...]
    above: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """A contiguous path ``start:stop`` whose subtree ends at `end`; it continues keys ``key_start:key_stop``."""

    start: int
    stop: int
    end: int
    key_start: int
    key_stop: int


# Rows of one masked piece: few enough that most of a piece is visible, many enough that a piece is worth a call.
_MIN_TILE, _MAX_TILE = 64, 512


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AttentionLayout:
    """The visibility of one chunk.

    Args:
        num_past: P, tokens of the path above.
        depth: [Q] position of each query.
        end: [Q] one past the last query of its subtree.
        past: [Q] how many past keys each query sees.
        parent: [Q] the query before it on its path, -1 where the path above or nothing comes before.
    """

    num_past: int
    depth: Ints
    end: Ints
    past: Ints
    parent: Ints
    _pieces: dict[int | None, Pieces] = field(default_factory=dict)

    @classmethod
    def of(cls, forest: Forest, chunk: Chunk) -> AttentionLayout:
        """Return the layout of a chunk of a forest."""
        depth, end, past, parent = [], [], [], []
        offset = 0
        for part in chunk.slices:
            tokens = slice(part.start, part.stop)
            shift = offset - part.start
            depth.append(forest.depth[tokens])
            # A stem is a slice of one path: the subtrees that leave it lie in other chunks.
            end.append(np.minimum(forest.end[tokens], part.stop) + shift)
            past.append(np.full(part.num_tokens, part.num_past, np.int32))
            above = forest.parent[tokens]
            parent.append(np.where(above >= part.start, above + shift, -1))
            offset += part.num_tokens
        return cls(
            num_past=chunk.num_past,
            depth=np.concatenate(depth),
            end=np.concatenate(end).astype(np.int32),
            past=np.concatenate(past),
            parent=np.concatenate(parent).astype(np.int32),
        )

    @property
    def num_queries(self) -> int:
        return len(self.depth)

    @property
    def key_depth(self) -> Ints:
        """[P + Q] position of each key."""
        return np.concatenate([np.arange(self.num_past, dtype=np.int32), self.depth])

    def dense_mask(self, window: int | None) -> NDArray[np.bool_]:
        """Return [Q, P + Q] which keys each query sees."""
        query = np.arange(self.num_queries)[:, None]
        past = np.arange(self.num_past)[None, :] < self.past[:, None]
        own = (query >= query.T) & (query < self.end[None, :])
        seen = np.concatenate([past, own], axis=1)
        return seen if window is None else seen & (self.depth[:, None] - self.key_depth[None, :] < window)

    def pieces(self, window: int | None) -> Pieces:
        """Return the attention of a layer with this sliding window (None: full attention) as dense pieces."""
        if window is not None and window > int(self.depth.max()):
            window = None
        if window not in self._pieces:
            self._pieces[window] = self._make_pieces(window)
        return self._pieces[window]

    def _make_pieces(self, window: int | None) -> Pieces:
        own: list[Piece] = []
        above: list[Piece] = []
        for run in self._runs():
            own.extend(self._own_pieces(run, window))
            if run.key_stop > run.key_start:
                above.extend(self._above_pieces(run, window))
        return Pieces(tuple(own), tuple(_joined(above)))

    def _runs(self) -> Iterator[_Run]:
        """Yield the heaviest paths: each is contiguous, and so is its subtree."""
        starts = np.concatenate([[0], np.flatnonzero(self.parent != np.arange(-1, self.num_queries - 1))])
        stops = [*starts[1:].tolist(), self.num_queries]
        run_of = np.repeat(np.arange(len(starts)), np.diff([*starts, self.num_queries]))
        for start, stop in zip(starts.tolist(), stops, strict=True):
            parent = int(self.parent[start])
            if parent < 0:
                keys = (0, int(self.past[start]))
            else:
                keys = (self.num_past + int(starts[run_of[parent]]), self.num_past + parent + 1)
            yield _Run(start, stop, int(self.end[start]), *keys)

    def _own_pieces(self, run: _Run, window: int | None) -> Iterator[Piece]:
        """Yield the causal attention of a run within itself."""
        first = self.num_past + run.start
        if window is None or run.stop - run.start <= window:
            yield Piece(run.start, run.stop, first, self.num_past + run.stop, Visible.CAUSAL)
            return
        tile = min(max(window, _MIN_TILE), _MAX_TILE)
        for start in range(run.start, run.stop, tile):
            stop = min(start + tile, run.stop)
            key_start = max(first, self.num_past + start - window + 1)
            yield Piece(start, stop, key_start, self.num_past + stop, Visible.BY_DEPTH)

    def _above_pieces(self, run: _Run, window: int | None) -> Iterator[Piece]:
        """Yield what a run's whole subtree sees of the path that the run continues."""
        if window is None:
            yield Piece(run.start, run.end, run.key_start, run.key_stop, Visible.ALL)
            return
        # Keys of one path lie at consecutive depths, so a depth tells a key.
        first_depth = int(self.depth[run.start]) - (run.key_stop - run.key_start)
        for start in range(run.start, run.end, _MAX_TILE):
            stop = min(start + _MAX_TILE, run.end)
            depths = self.depth[start:stop]
            nearest, farthest = int(depths.min()), int(depths.max())
            hidden = max(nearest - window + 1 - first_depth, 0)
            key_start = run.key_start + hidden
            if key_start >= run.key_stop:
                continue
            sees_all = farthest - (first_depth + hidden) < window
            yield Piece(start, stop, key_start, run.key_stop, Visible.ALL if sees_all else Visible.BY_DEPTH)


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Join neighbouring fully visible pieces that have the same keys, such as those of siblings."""
    pieces = sorted(pieces, key=lambda piece: (piece.key_start, piece.key_stop, piece.query_start))
    last: Piece | None = None
    for piece in pieces:
        if (
            last is not None
            and last.visible is piece.visible is Visible.ALL
            and (last.key_start, last.key_stop, last.query_stop) == (piece.key_start, piece.key_stop, piece.query_start)
        ):
            last = replace(last, query_stop=piece.query_stop)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
