"""Policies: what decides. An endpoint, a local model, a scripted expert, a random one, a replay, a person."""

from .base import Action, Context, ContextLengthExceeded, EpisodeStart, Policy, Usage, with_call_ids

__all__ = [
    "Action",
    "Context",
    "ContextLengthExceeded",
    "EpisodeStart",
    "Policy",
    "Usage",
    "with_call_ids",
]
