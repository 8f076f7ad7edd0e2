"""Discover a hidden function by trying it out, through the interface of UserRL's gyms (arXiv:2509.19736)."""

from .environment import FunctionGymEnvironment
from .gym import FunctionGym

__all__ = ["FunctionGym", "FunctionGymEnvironment"]
