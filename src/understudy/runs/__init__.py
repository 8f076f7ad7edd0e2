"""Run folders, provenance, metrics and progress."""

from .atomic import atomic_file, write_atomically
from .folder import RunFolder, hold_folder, package_versions
from .metrics import MetricsWriter, read_metrics
from .progress import Progress, format_seconds

__all__ = [
    "MetricsWriter",
    "Progress",
    "RunFolder",
    "atomic_file",
    "format_seconds",
    "hold_folder",
    "package_versions",
    "read_metrics",
    "write_atomically",
]
