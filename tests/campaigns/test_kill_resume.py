"""A short form of the campaign; ``python -m tests.campaigns.kill_resume`` is the long one."""

from __future__ import annotations

from pathlib import Path

from .kill_resume import run_campaign


def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    campaign = run_campaign(tmp_path, "lora with dropout", num_kills=2, num_steps=14, seed=3)
    assert len(campaign.kills) == 2
    assert "while writing" in campaign.kills[1]
    assert campaign.differences == []
