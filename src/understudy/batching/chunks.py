"""Cut a forest into chunks that are computed depth first, so that memory is bounded by one root-to-leaf path.

A chunk is a few slices of the forest that are run through the model together. It sees the keys and values of the chunks
above it. Forward passes run down the tree, and each chunk's backward pass runs as soon as all below it are done, so at
any moment only the chunks of one path are held: its tokens, and of each stem that it leaves sideways the rest.

There are two kinds. A *stem* is a slice of one path, cut from a subtree that is larger than the budget; the subtrees
that leave it become later chunks. A *leaf* chunk holds whole subtrees that leave the same stem (or whole trees), as
many as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .forest import Forest


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens ``start:stop`` of the forest. They all see the first `num_past` tokens of the path above the chunk."""

    start: int
    stop: int
    num_past: int

    @property
    def num_tokens(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class PathPart:
    """Tokens ``start:stop`` of a chunk, as a part of the path above another chunk."""

    chunk: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Slices that are computed together.

    Args:
        slices: in forest order.
        path: the stems above, from the root down; joined they are the longest past that a slice of this chunk sees.
        has_children: whether later chunks see this one's keys and values.
    """

    slices: tuple[Slice, ...]
    path: tuple[PathPart, ...] = ()
    has_children: bool = False

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.slices)

    @property
    def num_past(self) -> int:
        return sum(part.stop - part.start for part in self.path)


@dataclass(frozen=True, slots=True)
class ChunkStep:
    """One entry of the depth-first schedule. A leaf's forward is directly followed by its backward."""

    what: Literal["forward", "backward"]
    chunk: int


def whole(forest: Forest) -> list[Chunk]:
    """Return the forest as one chunk."""
    slices = [Slice(start, stop, 0) for start, stop in _siblings(forest, 0, forest.num_tokens)]
    return [Chunk(tuple(slices))]


def cut(forest: Forest, max_tokens: int) -> list[Chunk]:
    """Cut a forest into chunks of at most `max_tokens` tokens, parents before children.

    Every token is in exactly one chunk.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}")
    chunks: list[Chunk] = []
    pending: list[tuple[list[tuple[int, int]], int]] = [(_siblings(forest, 0, forest.num_tokens), -1)]
    while pending:
        subtrees, above = pending.pop()
        small = [(start, stop) for start, stop in subtrees if stop - start <= max_tokens]
        for group in _fill(small, max_tokens):
            chunks.append(_chunk(forest, group, chunks, above))
        for start, stop in subtrees:
            if stop - start > max_tokens:
                stem_stop = _stem_stop(forest, start, start + max_tokens)
                chunks.append(_chunk(forest, [(start, stem_stop)], chunks, above, has_children=True))
                pending.append((_siblings(forest, stem_stop, stop), len(chunks) - 1))
    return chunks


def schedule(chunks: Sequence[Chunk]) -> Iterator[ChunkStep]:
    """Yield the depth-first order of forward and backward passes."""
    children: list[list[int]] = [[] for _ in range(len(chunks) + 1)]  # the last entry holds the roots
    for index, chunk in enumerate(chunks):
        children[chunk.path[-1].chunk if chunk.path else -1].append(index)
    stack = [ChunkStep("forward", index) for index in reversed(children[-1])]
    while stack:
        step = stack.pop()
        yield step
        if step.what == "forward":
            stack.append(ChunkStep("backward", step.chunk))
            stack.extend(ChunkStep("forward", index) for index in reversed(children[step.chunk]))


def _siblings(forest: Forest, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the consecutive subtrees that tokens ``start:stop`` consist of."""
    out: list[tuple[int, int]] = []
    while start < stop:
        out.append((start, int(forest.end[start])))
        start = out[-1][1]
    return out


def _stem_stop(forest: Forest, start: int, stop: int) -> int:
    """Return where the slice from `start` stops being one path, at most `stop`."""
    leaves_path = np.flatnonzero(forest.parent[start + 1 : stop] != np.arange(start, stop - 1))
    return start + 1 + int(leaves_path[0]) if len(leaves_path) else stop


def _fill(subtrees: Sequence[tuple[int, int]], max_tokens: int) -> list[list[tuple[int, int]]]:
    """Put subtrees into groups of at most `max_tokens`, the largest first, each into the first group with room."""
    groups: list[list[tuple[int, int]]] = []
    room: list[int] = []
    for start, stop in sorted(subtrees, key=lambda part: part[0] - part[1]):
        fitting = next((n for n, free in enumerate(room) if free >= stop - start), None)
        if fitting is None:
            groups.append([])
            room.append(max_tokens)
            fitting = len(groups) - 1
        groups[fitting].append((start, stop))
        room[fitting] -= stop - start
    return [sorted(group) for group in groups]


def _chunk(
    forest: Forest, subtrees: Sequence[tuple[int, int]], chunks: Sequence[Chunk], above: int, has_children: bool = False
) -> Chunk:
    slices = tuple(Slice(start, stop, int(forest.depth[start])) for start, stop in subtrees)
    if above < 0:
        return Chunk(slices, has_children=has_children)
    stem = chunks[above]
    seen = max(part.num_past for part in slices) - stem.slices[0].num_past
    return Chunk(slices, (*stem.path, PathPart(above, 0, seen)), has_children)
