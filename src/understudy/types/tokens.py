"""The token tree: the tokens of many calls, with shared prefixes stored once.

Invariant kept by construction: the ids along the way from the root to a sequence's end are exactly the ids that were
inserted. Sharing is a result of equal ids, never an assumption.

Tokens lie in depth-first order, so every structure is a flat array of length T (tokens):

- ``ids[t]``     token id
- ``parent[t]``  index of the token before it on its path, -1 at a root. The logit that predicts token t is the one at
  ``parent[t]``, which is not always t - 1.
- ``depth[t]``   number of tokens before it on its path; its position id
- ``end[t]``     one past the last token of its subtree, so u descends from t exactly when ``t < u < end[t]``
- ``kind[t]``, ``owner[t]``  what the token is and the turn it belongs to

and the runs of tokens between branches are *nodes*: ``node_start``, ``node_stop``, ``node_parent``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class SpanKind(IntEnum):
    """What a token is. CONTEXT is whatever no span covers: other roles, headers, prefilled text."""

    CONTEXT = 0
    ACTION = 1
    OBSERVATION = 2


@dataclass(frozen=True, slots=True)
class Span:
    """A run of tokens on one inserted sequence: an action or an observation.

    Args:
        kind: ACTION (a turn's action, through the stop token) or OBSERVATION (text that the environment
            returned, through the token that ends it).
        turn: index of the turn in its trajectory. For an observation, the turn that observed it.
        start: depth of the first token.
        stop: depth one past the last token.
        weight: the turn's own weight (`Turn.weight`); objectives multiply it by theirs.
        message: index of the message within the turn's observation; -1 for an action.
        label: free text that an objective may select by; the role of an observed message.
    """

    kind: SpanKind
    turn: int
    start: int
    stop: int
    weight: float = 1.0
    message: int = -1
    label: str = ""


@dataclass(slots=True)
class _Node:
    """A run of tokens without a branch. A split keeps the index at the lower half, so sequence ends stay valid."""

    ids: Ints
    start_depth: int
    parent: int
    children: dict[int, int] = field(default_factory=dict)  # first token id -> node index

    @property
    def stop_depth(self) -> int:
        """Depth one past the last token."""
        return self.start_depth + len(self.ids)


def _common_prefix(a: Ints, b: Ints) -> int:
    """Return the length of the longest common prefix of two id arrays."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


class TokenTreeBuilder:
    """Grow a tree by inserting whole sequences with their spans."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = [_Node(np.zeros(0, np.int32), 0, -1)]
        self._sequences: list[tuple[int, tuple[Span, ...]]] = []  # (node that the sequence ends with, spans)
        self._num_inserted_tokens = 0
        self._last_ids: Ints = np.zeros(0, np.int32)  # the last sequence inserted whole
        self._last_node = 0  # and the node it ends with

    def insert(self, ids: Sequence[int] | Ints, spans: Sequence[Span] = (), *, after: int | None = None) -> int:
        """Insert one sequence, the ids of one call: prompt and reply; return its index in `TokenTree.sequences`.

        Args:
            after: index of an inserted sequence that this one continues. `ids` are then only what comes after it, while
                the depths of `spans` still count from the root.

        Raises:
            ValueError: nothing is inserted, or a span lies outside the sequence.
        """
        added = np.asarray(ids, dtype=np.int32)
        if not len(added):
            raise ValueError("cannot insert an empty sequence")
        above = 0 if after is None else self._sequences[after][0]
        length = self._nodes[above].stop_depth + len(added)
        for span in spans:
            if not 0 <= span.start < span.stop <= length:
                raise ValueError(f"span {span.start}:{span.stop} lies outside {length} tokens")
        if after is None:
            above, rest = self._start_from_last(added)
            self._last_ids, self._last_node = added, self._walk(rest, above)
            end = self._last_node
        else:
            end = self._walk(added, above)
        self._sequences.append((end, tuple(spans)))
        self._num_inserted_tokens += len(added)
        return len(self._sequences) - 1

    def _start_from_last(self, sequence: Ints) -> tuple[int, Ints]:
        """Return the node in which the part shared with the last whole sequence ends, and what is left of `sequence`.

        The next call of a conversation begins like the last one, so this saves walking down all of it.
        """
        shared = _common_prefix(self._last_ids, sequence)
        if not shared:
            return 0, sequence
        node = self._last_node
        while self._nodes[node].start_depth >= shared:
            node = self._nodes[node].parent
        if shared < self._nodes[node].stop_depth:
            node = self._split(node, shared - self._nodes[node].start_depth)
        return node, sequence[shared:]

    def _walk(self, sequence: Ints, current: int) -> int:
        """Follow the sequence from the end of node `current`, adding what is new; return the node that ends with it."""
        nodes, done = self._nodes, 0
        while done < len(sequence):
            child = nodes[current].children.get(int(sequence[done]))
            if child is None:
                nodes.append(_Node(sequence[done:].copy(), nodes[current].stop_depth, current))
                nodes[current].children[int(sequence[done])] = len(nodes) - 1
                return len(nodes) - 1
            shared = _common_prefix(nodes[child].ids, sequence[done:])
            current = self._split(child, shared) if shared < len(nodes[child].ids) else child
            done += shared
        return current

    def _split(self, index: int, length: int) -> int:
        """Cut a node after `length` tokens; return the new upper half. The lower half keeps the index."""
        nodes, lower = self._nodes, self._nodes[index]
        upper = _Node(lower.ids[:length], lower.start_depth, lower.parent)
        nodes.append(upper)
        nodes[lower.parent].children[int(upper.ids[0])] = len(nodes) - 1
        lower.ids, lower.start_depth, lower.parent = lower.ids[length:], lower.start_depth + length, len(nodes) - 1
        upper.children[int(lower.ids[0])] = index
        return len(nodes) - 1

    def build(self) -> TokenTree:
        """Return the finished tree. The builder may go on growing; the tree does not change with it."""
        order, stops = self._depth_first()
        rank = {index: n for n, index in enumerate(order)}
        starts: dict[int, int] = {}
        position = 0
        for index in order:
            starts[index] = position
            position += len(self._nodes[index].ids)
        num_tokens = position
        node_start = np.array([starts[i] for i in order], np.int32)
        node_stop = np.array([starts[i] + len(self._nodes[i].ids) for i in order], np.int32)
        node_parent = np.array([rank.get(self._nodes[i].parent, -1) for i in order], np.int32)
        node_end = np.array([stops[i] for i in order], np.int32)
        ids = np.concatenate([self._nodes[i].ids for i in order]) if order else np.zeros(0, np.int32)
        parent = np.arange(-1, num_tokens - 1, dtype=np.int32)
        depth = np.zeros(num_tokens, np.int32)
        end = np.zeros(num_tokens, np.int32)
        for n, index in enumerate(order):
            start, stop, above = int(node_start[n]), int(node_stop[n]), int(node_parent[n])
            parent[start] = -1 if above < 0 else node_stop[above] - 1
            first = self._nodes[index].start_depth
            depth[start:stop] = np.arange(first, first + stop - start, dtype=np.int32)
            end[start:stop] = node_end[n]
        return TokenTree(
            ids=ids.astype(np.int32, copy=False),
            parent=parent,
            depth=depth,
            end=end,
            node_start=node_start,
            node_stop=node_stop,
            node_parent=node_parent,
            sequences=tuple((rank[node], spans) for node, spans in self._sequences),
            num_inserted_tokens=self._num_inserted_tokens,
        )

    def _depth_first(self) -> tuple[list[int], dict[int, int]]:
        """Return the node indices in depth-first order (children as inserted) and each one's subtree end."""
        order: list[int] = []
        ends: dict[int, int] = {}
        position = 0
        stack: list[tuple[int, bool]] = [(child, False) for child in reversed(self._nodes[0].children.values())]
        while stack:
            index, closing = stack.pop()
            if closing:
                ends[index] = position
                continue
            order.append(index)
            position += len(self._nodes[index].ids)
            stack.append((index, True))
            stack.extend((child, False) for child in reversed(self._nodes[index].children.values()))
        return order, ends


@dataclass(frozen=True, slots=True, eq=False)
class TokenTree:
    """A finished tree; see the module's docstring for the arrays.

    `sequences` holds, for each inserted sequence in order, the node it ends with and its spans.
    `num_inserted_tokens` is what the sequences count without sharing.
    """

    ids: Ints
    parent: Ints
    depth: Ints
    end: Ints
    node_start: Ints
    node_stop: Ints
    node_parent: Ints
    sequences: tuple[tuple[int, tuple[Span, ...]], ...]
    num_inserted_tokens: int

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def leaves(self) -> Ints:
        """Return the nodes that nothing branches from, in depth-first order."""
        is_leaf = np.ones(len(self.node_start), bool)
        is_leaf[self.node_parent[self.node_parent >= 0]] = False
        return np.flatnonzero(is_leaf).astype(np.int32)

    def path(self, node: int) -> Ints:
        """Return the token indices from the root through the end of `node`, in order."""
        nodes: list[int] = []
        while node >= 0:
            nodes.append(node)
            node = int(self.node_parent[node])
        runs = [np.arange(self.node_start[n], self.node_stop[n], dtype=np.int32) for n in reversed(nodes)]
        return np.concatenate(runs) if runs else np.zeros(0, np.int32)

    def spans(self) -> Iterator[tuple[Span, Ints]]:
        """Yield every span of every sequence with the indices of its tokens.

        A token that several sequences supervise is yielded once for each, so that weights of equal tokens add up.
        """
        for node, spans in self.sequences:
            if not spans:
                continue
            for span in spans:
                yield span, self._slice_of_path(node, span.start, span.stop)

    def _slice_of_path(self, node: int, start: int, stop: int) -> Ints:
        """Return the token indices of depths start to stop on the way to `node`."""
        runs: list[Ints] = []
        while stop > start:
            first = int(self.node_start[node])
            depth = int(self.depth[first])
            if depth < stop:
                low = max(start, depth)
                runs.append(np.arange(first + low - depth, first + stop - depth, dtype=np.int32))
                stop = low
            node = int(self.node_parent[node])
        return np.concatenate(runs[::-1])

    def sequence_ids(self, index: int) -> Ints:
        """Return the ids of the `index`-th inserted sequence."""
        return self.ids[self.path(self.sequences[index][0])]

    def kinds(self) -> tuple[Ints, Ints]:
        """Return (kind [T], owner [T]): each token's SpanKind and the turn it belongs to (-1 for context).

        Where several turns own one token (siblings that begin alike), the first one inserted is named.
        """
        kind = np.full(self.num_tokens, SpanKind.CONTEXT, np.int32)
        owner = np.full(self.num_tokens, -1, np.int32)
        for span, tokens in self.spans():
            free = tokens[owner[tokens] < 0]
            kind[free], owner[free] = span.kind, span.turn
        return kind, owner

    def action_weights(self) -> Floats:
        """Return [T] the summed turn weights of the action spans on each token: behavioural cloning's weights."""
        weights = np.zeros(self.num_tokens, np.float32)
        for span, tokens in self.spans():
            if span.kind == SpanKind.ACTION:
                weights[tokens] += span.weight
        return weights

    def rows(self, weights: Floats) -> Iterator[tuple[Ints, Floats]]:
        """Yield flat rows (ids, weights), one for each root-to-leaf path that carries weight.

        For trainers without trees. Every weighted token is carried by exactly one row, so the rows' weights sum to the
        tree's.
        """
        carried = np.zeros(self.num_tokens, bool)
        for node in self.leaves():
            path = self.path(int(node))
            row = np.where(carried[path], np.float32(0), weights[path])
            carried[path] = True
            if row.any():
                yield self.ids[path], row
