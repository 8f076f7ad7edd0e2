"""The Python API, and what the console commands call: where files and formats meet the trainer."""

from .datasets import Dataset
from .train import dry_run, dry_runs, read_config, train

__all__ = ["Dataset", "dry_run", "dry_runs", "read_config", "train"]
