"""What each token weighs in the loss. One file for each objective; numpy only."""

from .base import Objective, TurnWeights

__all__ = ["Objective", "TurnWeights"]
