"""Planning on a grid: finding a path, and Sokoban."""

from .environment import Grid

__all__ = ["Grid"]
