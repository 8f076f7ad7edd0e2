"""A short form of the campaign; ``python -m tests.campaigns.kill_run`` is the long one."""

from __future__ import annotations

from pathlib import Path

from .kill_run import STAGES, run_campaign


def test_a_run_that_is_killed_in_every_stage_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kills = dict.fromkeys(STAGES, 1)
    campaign = run_campaign(tmp_path, kills=kills, seed=1, num_episodes=400, num_steps=8, num_tasks=6)
    assert len(campaign.kills) >= 3
    assert {"collect", "train"} <= set(campaign.kills)
    assert campaign.differences == []
