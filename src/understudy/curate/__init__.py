"""From collected episodes to a training set: what is in it, and what of it is kept."""

from .statistics import DIMENSIONS, EpisodeStatistics

__all__ = ["DIMENSIONS", "EpisodeStatistics"]
