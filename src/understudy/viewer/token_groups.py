"""A token tree cut into runs that look alike: the common ground of the terminal view and the HTML view.

Every token of the tree is in exactly one group, in depth-first order, so what two views show is the same, and a prefix
that many turns share is shown once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from understudy.types import SpanKind, TokenTree


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Neighbouring tokens of one kind, owner and weight.

    Args:
        ids: the token ids.
        text: what they decode to, together.
        kind: what they are.
        turn: the turn that owns them; -1 for context.
        weight: what the objective gives each of them; 0 is not trained.
        depth: position of the first one on its path.
        is_branch: True where the group does not continue the group before it, but forks off at `depth`.
        is_control: True for one added token, such as a role header's.
    """

    ids: tuple[int, ...]
    text: str
    kind: SpanKind
    turn: int
    weight: float
    depth: int
    is_branch: bool
    is_control: bool


def token_groups(tree: TokenTree, weights: Any, backend: Any) -> Iterator[TokenGroup]:
    """Cut the tree into groups.

    Args:
        weights: [T] weight of each token under the objective that is shown.
        backend: the `tokenizers.Tokenizer` that decodes.
    """
    if not tree.num_tokens:
        return
    added = set(backend.get_added_tokens_decoder())
    control = np.array([int(token) in added for token in tree.ids])
    kind, owner = tree.kinds()
    starts_node = np.zeros(tree.num_tokens, bool)
    starts_node[tree.node_start] = True
    changes = starts_node.copy()
    changes[0] = True
    for values in (kind, owner, np.asarray(weights), control):
        changes[1:] |= values[1:] != values[:-1]
    changes[1:] |= control[1:]  # two control tokens in a row stay apart
    edges = [*np.flatnonzero(changes).tolist(), tree.num_tokens]
    for start, stop in pairwise(edges):
        ids = tuple(tree.ids[start:stop].tolist())
        yield TokenGroup(
            ids=ids,
            text=backend.decode(list(ids), skip_special_tokens=False),
            kind=SpanKind(int(kind[start])),
            turn=int(owner[start]),
            weight=float(weights[start]),
            depth=int(tree.depth[start]),
            is_branch=start > 0 and int(tree.parent[start]) != start - 1,
            is_control=bool(control[start]),
        )
