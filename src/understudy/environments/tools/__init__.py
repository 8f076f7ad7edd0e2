"""A small shop whose service desk acts through tools, by rules, in the manner of τ-bench (arXiv:2406.12045)."""

from .environment import Tools

__all__ = ["Tools"]
