"""The pipeline: collect, curate, train and evaluate in one folder, each stage once."""

from .config import RunConfig
from .following import STAGES
from .pipeline import PlannedStage, RunResult, StageOutcome, plan, read_run_config, run
from .stages import StageInterrupted

__all__ = [
    "STAGES",
    "PlannedStage",
    "RunConfig",
    "RunResult",
    "StageInterrupted",
    "StageOutcome",
    "plan",
    "read_run_config",
    "run",
]
