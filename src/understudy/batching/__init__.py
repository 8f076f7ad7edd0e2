"""From weighted trees to the micro-batches of a step: draw, merge, pack, balance. Numpy only."""

from .chunks import Chunk, ChunkStep, PathPart, Slice, schedule
from .examples import Example, make_example
from .forest import Forest, Targets, concatenate, merge, separate_rows
from .lengths import LENGTH_POLICIES, LengthCounts, LengthLimiter, LengthPolicy
from .plan import LAYOUTS, Layout, MicroBatch, Planner, Source, StepPlan
from .sampler import Sampler

__all__ = [
    "LAYOUTS",
    "LENGTH_POLICIES",
    "Chunk",
    "ChunkStep",
    "Example",
    "Forest",
    "Layout",
    "LengthCounts",
    "LengthLimiter",
    "LengthPolicy",
    "MicroBatch",
    "PathPart",
    "Planner",
    "Sampler",
    "Slice",
    "Source",
    "StepPlan",
    "Targets",
    "concatenate",
    "make_example",
    "merge",
    "schedule",
    "separate_rows",
]
