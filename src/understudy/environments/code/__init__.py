"""Writing functions: a description, examples, tests that the agent can run, and hidden tests that decide."""

from .environment import Code

__all__ = ["Code"]
