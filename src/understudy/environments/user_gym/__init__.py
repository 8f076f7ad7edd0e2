"""A user with hidden wishes, through the interface of UserRL's gyms (arXiv:2509.19736)."""

from .environment import UserGymEnvironment
from .gym import UserGym

__all__ = ["UserGym", "UserGymEnvironment"]
