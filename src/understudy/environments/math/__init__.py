"""Arithmetic with a calculator: expressions and word problems."""

from .environment import Math

__all__ = ["Math"]
