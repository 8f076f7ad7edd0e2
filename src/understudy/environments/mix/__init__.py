"""Several environments as one: their tasks in turn, in given shares."""

from .environment import Mix, MixConfig, MixMember, environment_of
from .tasks import MixedTasks

__all__ = ["Mix", "MixConfig", "MixMember", "MixedTasks", "environment_of"]
