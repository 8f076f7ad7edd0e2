"""From collected episodes to a training set: what is in it, and what of it is kept."""

from .config import CurateConfig
from .curation import CurateResult, curate
from .rules import RuleReport
from .statistics import DIMENSIONS, EpisodeStatistics

__all__ = ["DIMENSIONS", "CurateConfig", "CurateResult", "EpisodeStatistics", "RuleReport", "curate"]
