"""Understudy: supervised fine-tuning of LLM agents on trajectories.

Importing this package is fast and loads neither torch nor transformers; what needs them loads them when it is used.
"""

__version__ = "0.1.0"
