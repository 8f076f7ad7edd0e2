"""Multi-hop questions over a generated collection of documents, with search and reading as tools."""

from .environment import Search

__all__ = ["Search"]
