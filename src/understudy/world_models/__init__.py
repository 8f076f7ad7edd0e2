"""Acting in what a model imagines: world models, dreams in place of an environment, and a planner that uses them."""

from .settings import WorldModelSettings

__all__ = ["WorldModelSettings"]
