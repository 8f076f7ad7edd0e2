"""Behavioural cloning: predict the actions, from the first token of each through the token that ends the turn."""

from __future__ import annotations

from understudy.types import Episode, SpanKind, TokenTree, Trajectory

from .base import Objective, TurnWeights, Weights, add_spans, check_coefficients

TERM = "behavioral_cloning"


class BehavioralCloning(Objective):
    """Weigh the tokens of actions.

    Args:
        bc_weight: the term's coefficient.
        weight_by: see `TurnWeights`.
    """

    def __init__(self, bc_weight: float = 1.0, weight_by: str = "none") -> None:
        self.coefficients = check_coefficients({TERM: bc_weight})
        self._turn_weights = TurnWeights(weight_by)

    def weigh(self, tree: TokenTree, trajectory: Trajectory, episode: Episode | None = None) -> dict[str, Weights]:
        weighted = (
            (tokens, self._turn_weights.of(span, span.turn, trajectory, episode))
            for span, tokens in tree.spans()
            if span.kind == SpanKind.ACTION and span.weight
        )
        return {TERM: add_spans(tree, weighted)}
