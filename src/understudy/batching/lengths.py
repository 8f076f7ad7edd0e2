"""What is done with a tree that is too long: refuse it, drop it, or cut it at a turn boundary. Always counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, DataError, did_you_mean
from understudy.types import Span, TokenTree

LengthPolicy = Literal["error", "drop", "cut_turns"]
LENGTH_POLICIES: tuple[LengthPolicy, ...] = ("error", "drop", "cut_turns")


@dataclass(slots=True)
class LengthCounts:
    """What a limit did to the trees that it saw. Spans are actions and observations."""

    num_seen: int = 0
    num_cut: int = 0
    num_dropped: int = 0
    num_dropped_spans: int = 0
    num_dropped_span_tokens: int = 0
    dropped_names: list[str] = field(default_factory=list)


class LengthLimiter:
    """Hold trees to `max_length` tokens on every path.

    A path's length counts through its last trained token; what follows that is never computed. ``cut_turns``
    takes the supervision off every action and observation that does not end within the limit, so a cut never falls
    inside one, and what then follows the last supervised token is not computed. Short paths of the same tree stay
    whole.

    Args:
        max_length: tokens, counted from the root; None for no limit.
        policy: ``error`` raises, ``drop`` drops the whole tree, ``cut_turns`` cuts.

    Raises:
        ConfigError: the policy is unknown or the limit is below 2, with which nothing can be predicted.
    """

    def __init__(self, max_length: int | None, policy: LengthPolicy = "error") -> None:
        if policy not in LENGTH_POLICIES:
            known = ", ".join(LENGTH_POLICIES)
            raise ConfigError(
                f"unknown length policy {policy!r}.{did_you_mean(policy, LENGTH_POLICIES)} Known: {known}"
            )
        if max_length is not None and max_length < 2:
            raise ConfigError(f"max_length is {max_length}: a path needs 2 tokens for one to be predicted")
        self._max_length = max_length
        self._policy = policy
        self.counts = LengthCounts()

    def apply(
        self, tree: TokenTree, name: str = "", *, trained: Callable[[], NDArray[np.bool_]] | None = None
    ) -> TokenTree | None:
        """Return the tree that may be trained; None when it is dropped or nothing of it fits.

        Args:
            trained: says which tokens are trained ([T]), and is asked only where a longer path hangs on it; None for
                all of all actions and observations.

        Raises:
            DataError: the tree is too long and the policy is ``error``.
        """
        self.counts.num_seen += 1
        limit = self._max_length
        longest = max((span.stop for _, spans in tree.sequences for span in spans), default=0)
        if limit is not None and longest > limit and trained is not None:
            longest = int(tree.depth[trained()].max(initial=-1)) + 1
        if limit is None or longest <= limit:
            return tree
        if self._policy == "error":
            raise DataError(
                f"{longest} tokens through the last trained one are more than max_length {limit}",
                field=name or None,
                mend="raise max_length, or choose what to do: max_length_policy: drop or cut_turns",
            )
        fitting = [[span for span in spans if span.stop <= limit] for _, spans in tree.sequences]
        if self._policy == "drop" or not any(fitting):
            fitting = [[] for _ in fitting]
        dropped = [
            span for (_, spans), kept in zip(tree.sequences, fitting, strict=True) for span in spans if span not in kept
        ]
        return self._count(tree, fitting, dropped, name)

    def _count(self, tree: TokenTree, fitting: list[list[Span]], dropped: list[Span], name: str) -> TokenTree | None:
        self.counts.num_dropped_spans += len(dropped)
        self.counts.num_dropped_span_tokens += sum(span.stop - span.start for span in dropped)
        if not any(fitting):
            self.counts.num_dropped += 1
            self.counts.dropped_names.append(name)
            return None
        self.counts.num_cut += 1
        sequences = zip(tree.sequences, fitting, strict=True)
        return replace(tree, sequences=tuple((node, tuple(kept)) for (node, _), kept in sequences))
