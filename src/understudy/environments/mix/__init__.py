"""Several environments as one: their tasks in turn, in given shares."""

from .environment import Mix, MixConfig, MixMember
from .tasks import MixedTasks, environment_of

__all__ = ["Mix", "MixConfig", "MixMember", "MixedTasks", "environment_of"]
