"""The pipeline: collect, curate, train and evaluate in one folder, each stage once; or again and again, in a loop."""

from .config import RunConfig
from .following import STAGES
from .history import History
from .loop import LoopResult, plan_loop
from .loop_config import DemonstrationsSection, LoopSection, PreviousSection
from .pipeline import PlannedStage, RunResult, StageOutcome, plan, read_run_config
from .stages import StageInterrupted
from .start import run

__all__ = [
    "STAGES",
    "DemonstrationsSection",
    "History",
    "LoopResult",
    "LoopSection",
    "PlannedStage",
    "PreviousSection",
    "RunConfig",
    "RunResult",
    "StageInterrupted",
    "StageOutcome",
    "plan",
    "plan_loop",
    "read_run_config",
    "run",
]
