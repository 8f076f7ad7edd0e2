"""Several agents from the environment to training: policies, statistics, curation and data, agent by agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import understudy
from understudy.cli.main import main
from understudy.collect import CollectConfig
from understudy.collect.collection import make_policies
from understudy.config import config_from_dict
from understudy.formats import read_episodes
from understudy.types import Episode

EXPERT, RANDOM = {"name": "expert"}, {"name": "random"}


def collected(folder: Path, *settings: str) -> tuple[list[Episode], dict[str, Any]]:
    """Collect through the command line; return the episodes and the statistics beside them."""
    assert main(["collect", f"output_dir={folder}", *settings]) == 0
    (stats,) = folder.glob("*_stats.json")
    return list(read_episodes(str(folder))), json.loads(stats.read_text())


def test_agents_share_a_policy_or_have_one_each(tmp_path: Path) -> None:
    settings = {"environment": {"name": "team"}, "output_dir": str(tmp_path)}
    shared = make_policies(config_from_dict(CollectConfig, settings | {"policy": EXPERT}), ("planner", "solver"))
    assert shared["planner"] is shared["solver"]
    each = {"policy": EXPERT, "policies": {"solver": RANDOM}}
    policies = make_policies(config_from_dict(CollectConfig, settings | each), ("planner", "solver"))
    assert {agent: policy.name for agent, policy in policies.items()} == {"planner": "expert", "solver": "random"}


def test_statistics_tell_agents_apart(tmp_path: Path) -> None:
    settings = ("environment.name=team", "policies={planner: {name: random}, solver: {name: expert}}")
    episodes, stats = collected(tmp_path / "team", *settings, "num_episodes=5")
    assert {t.agent: t.policy for e in episodes for t in e.trajectories} == {"planner": "random", "solver": "expert"}
    assert {agent: policy["name"] for agent, policy in stats["policies"].items()} == {
        "planner": "random", "solver": "expert",
    }  # fmt: skip
    by_agent = stats["by"]["agent"]
    assert by_agent["planner"]["success"] == {"num_known": 5, "num_successes": 0, "rate": 0.0}
    turns = {t.agent: 0 for t in episodes[0].trajectories}
    for episode in episodes:
        for trajectory in episode.trajectories:
            turns[trajectory.agent] += sum(turn.action is not None for turn in trajectory.turns)
    assert {agent: by_agent[agent]["num_turns"] for agent in turns} == turns


def test_a_debates_winners_are_kept_balanced_and_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("environment.name=debate", "environment.arguments.level=1", "policy.name=expert", "num_episodes=60")
    episodes, stats = collected(tmp_path / "debates", *settings)
    winners = [t.agent for e in episodes for t in e.trajectories if t.success]
    assert (stats["num_successes"], stats["num_success_known"]) == (0, 60)
    assert stats["by"]["agent"]["pro"]["success"]["num_successes"] == winners.count("pro")
    curate = ["curate", f"path={tmp_path / 'debates'}", f"output_dir={tmp_path / 'won'}", "only_success=true"]
    capsys.readouterr()
    assert main(curate) == 2
    assert f"{len(winners)} episodes have agents that succeeded: success_of=agent keeps" in capsys.readouterr().err
    assert main([*curate, "collect_mode=agent", "agent_ratios={pro: 1, contra: 1}"]) == 0
    num = min(winners.count("pro"), winners.count("contra"))
    assert f"contra {num}" in capsys.readouterr().out
    won = list(read_episodes(str(tmp_path / "won")))
    kept = [t for e in won for t in e.trajectories]
    assert sorted(t.agent for t in kept) == ["contra"] * num + ["pro"] * num
    assert all(t.success for t in kept)
    understudy.train(
        {
            "output_dir": str(tmp_path / "run"),
            "model": {"tiny": "qwen3", "hidden_size": 16, "num_layers": 1, "vocab_size": 300},
            "data": {"path": str(tmp_path / "won"), "agents": ["contra"]},
            "train": {"max_steps": 1},
        }
    )
    (source,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]["sources"]
    assert (source["num_examples"], source["num_unselected"]) == (num, num)
    assert source["num_trajectories_by_agent"] == {"pro": num, "contra": num}
