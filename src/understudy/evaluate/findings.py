"""All that an evaluation found: what the reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .config import EvaluateConfig
from .held_out import HeldOutLoss
from .pairing import PairedScores
from .predictions import Predictions
from .scores import Outcome, Scores


@dataclass(frozen=True, slots=True)
class Side:
    """One policy with what it did.

    Args:
        label: what it is called.
        episodes: file or folder of its episodes.
        outcomes: what each of them comes to.
    """

    label: str
    episodes: Path
    outcomes: tuple[Outcome, ...]
    scores: Scores


@dataclass(frozen=True, slots=True)
class Findings:
    """What an evaluation found; what was not asked for is None, or empty."""

    config: EvaluateConfig
    policy: Side | None
    baseline: Side | None
    comparison: PairedScores | None
    losses: tuple[HeldOutLoss, ...]
    predictions: tuple[Predictions, ...]
