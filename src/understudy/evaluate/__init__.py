"""Evaluating: what episodes say about a policy, and how sure that is."""

from .config import EvaluateConfig, LossSection, WorldModelSection
from .evaluation import EvaluateResult, check_evaluation, evaluate
from .held_out import HeldOutLoss, TermLoss
from .pairing import PairedScores, compare
from .predictions import Predictions, Tally, WrongPrediction
from .scores import Outcome, PassAtK, Scores, outcome_of, score
from .statistics import Comparison, Estimate, compare_paired, mean_interval, pass_at_k, pass_hat_k, success_interval

__all__ = [
    "Comparison",
    "Estimate",
    "EvaluateConfig",
    "EvaluateResult",
    "HeldOutLoss",
    "LossSection",
    "Outcome",
    "PairedScores",
    "PassAtK",
    "Predictions",
    "Scores",
    "Tally",
    "TermLoss",
    "WorldModelSection",
    "WrongPrediction",
    "check_evaluation",
    "compare",
    "compare_paired",
    "evaluate",
    "mean_interval",
    "outcome_of",
    "pass_at_k",
    "pass_hat_k",
    "score",
    "success_interval",
]
