"""``report.json``: all figures of an evaluation."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from understudy.evaluate.findings import Findings, Side

SCHEMA_VERSION = 1


def json_report(findings: Findings) -> dict[str, Any]:
    """Return all figures as JSON. JSON has no infinity: an interval without an end has null there."""
    config = findings.config
    report = {
        "schema_version": SCHEMA_VERSION,
        "environment": config.environment.model_dump(mode="json") if config.environment is not None else None,
        "split": config.split,
        "seed": config.seed,
        "samples_per_task": config.samples_per_task,
        "max_turns": config.max_turns,
        "confidence": config.confidence,
        "policy": _side(findings.policy),
        "baseline": _side(findings.baseline),
        "comparison": asdict(findings.comparison) if findings.comparison is not None else None,
        "losses": [asdict(loss) for loss in findings.losses],
        "world_models": [asdict(found) for found in findings.predictions],
    }
    finite: dict[str, Any] = _finite(report)
    return finite


def _side(side: Side | None) -> dict[str, Any] | None:
    return None if side is None else {"label": side.label, **asdict(side.scores)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
