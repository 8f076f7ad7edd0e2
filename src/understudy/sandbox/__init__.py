"""Running untrusted code: in a process of its own, isolated and limited, with what became of it as data."""

from .isolation import NO_ISOLATION, REQUIRED, Isolation, Probe, available_isolation, probe
from .results import Limits, Outcome, ProgramRun, Reason, is_same
from .sandbox import Sandbox

__all__ = [
    "NO_ISOLATION",
    "REQUIRED",
    "Isolation",
    "Limits",
    "Outcome",
    "Probe",
    "ProgramRun",
    "Reason",
    "Sandbox",
    "available_isolation",
    "is_same",
    "probe",
]
