"""Two agents who need each other: one knows what is to be done, the other can see and do it."""

from .environment import Team

__all__ = ["Team"]
