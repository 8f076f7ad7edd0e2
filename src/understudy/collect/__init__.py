"""Collecting: play episodes, one or thousands at once, and write them down so that none is lost."""

from understudy.config import Component

from .collection import CollectResult, collect, prepare
from .config import CollectConfig
from .engine import play_all
from .rollout import Play, play_episode

__all__ = ["CollectConfig", "CollectResult", "Component", "Play", "collect", "play_all", "play_episode", "prepare"]
