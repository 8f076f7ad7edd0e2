"""Two agents argue for and against a motion, and a judge counts what they say."""

from .environment import Debate

__all__ = ["Debate"]
