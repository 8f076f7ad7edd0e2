"""World model: predict what the environment answers to an action, given all that came before it."""

from __future__ import annotations

from collections.abc import Collection

from understudy.types import Episode, SpanKind, TokenTree, Trajectory

from .base import Objective, TurnWeights, Weights, add_spans, check_coefficients

TERM = "world_model"


class WorldModel(Objective):
    """Weigh the tokens of observations that follow an action.

    What stands before the first action (the system prompt, the task) is no answer to anything and weighs nothing. An
    observation has the merit of the action that it answers, so `weight_by` reads that action's turn.

    Args:
        world_model_weight: the term's coefficient.
        weight_by: see `TurnWeights`.
        observation_roles: the roles of the messages to predict, e.g. ``["tool"]``; None for all.
    """

    def __init__(
        self,
        world_model_weight: float = 1.0,
        weight_by: str = "none",
        observation_roles: Collection[str] | None = None,
    ) -> None:
        self.coefficients = check_coefficients({TERM: world_model_weight})
        self._turn_weights = TurnWeights(weight_by)
        self._roles = None if observation_roles is None else frozenset(observation_roles)

    def weigh(self, tree: TokenTree, trajectory: Trajectory, episode: Episode | None = None) -> dict[str, Weights]:
        weighted = []
        for span, tokens in tree.spans():
            if span.kind != SpanKind.OBSERVATION or not span.weight:
                continue
            acted = trajectory.turns[span.turn].parent
            if acted is None or trajectory.turns[acted].action is None:
                continue
            if self._roles is None or span.label in self._roles:
                weighted.append((tokens, self._turn_weights.of(span, acted, trajectory, episode)))
        return {TERM: add_spans(tree, weighted)}
