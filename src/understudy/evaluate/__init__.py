"""Evaluating: what episodes say about a policy, and how sure that is."""

from .statistics import Comparison, Estimate, compare_paired, mean_interval, pass_at_k, pass_hat_k, success_interval

__all__ = [
    "Comparison",
    "Estimate",
    "compare_paired",
    "mean_interval",
    "pass_at_k",
    "pass_hat_k",
    "success_interval",
]
