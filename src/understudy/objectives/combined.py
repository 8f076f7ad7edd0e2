"""Behavioural cloning and world model at once, in one forward pass."""

from __future__ import annotations

from collections.abc import Collection

from understudy.types import Episode, TokenTree, Trajectory

from . import behavioral_cloning, world_model
from .base import Objective, Weights, check_coefficients


class Combined(Objective):
    """The sum of both terms, each normalised by its own weights.

    A term whose coefficient is 0 is still measured and reported, at the cost of its logits.

    Args:
        bc_weight: coefficient of behavioural cloning.
        world_model_weight: coefficient of the world model.
        weight_by: see `TurnWeights`.
        observation_roles: see `WorldModel`.
    """

    def __init__(
        self,
        bc_weight: float = 1.0,
        world_model_weight: float = 1.0,
        weight_by: str = "none",
        observation_roles: Collection[str] | None = None,
    ) -> None:
        self.coefficients = check_coefficients(
            {behavioral_cloning.TERM: bc_weight, world_model.TERM: world_model_weight}
        )
        self._cloning = behavioral_cloning.BehavioralCloning(weight_by=weight_by)
        self._world_model = world_model.WorldModel(weight_by=weight_by, observation_roles=observation_roles)

    def weigh(self, tree: TokenTree, trajectory: Trajectory, episode: Episode | None = None) -> dict[str, Weights]:
        return self._cloning.weigh(tree, trajectory, episode) | self._world_model.weigh(tree, trajectory, episode)
