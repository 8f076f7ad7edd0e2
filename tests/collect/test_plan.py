"""The plan of a collection in a mix: shares in every part of it, names, ids, and what there are too few of."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.collect.test_collection import config, episodes, run
from understudy.collect import prepare
from understudy.collect.plan import Plan
from understudy.errors import ConfigError

MAZE = {"name": "grid", "arguments": {"size": 4, "min_moves": 1, "num_tasks": {"train": 12}}}
SUMS = {"name": "math", "arguments": {"max_operations": 1}}


def mix(maze: float = 1, sums: float = 2) -> dict[str, Any]:
    environments = {"maze": MAZE | {"ratio": maze}, "sums": SUMS | {"ratio": sums}}
    return {"name": "mix", "arguments": {"environments": environments}}


def planned(folder: Path, **fields: Any) -> Plan:
    return prepare(config(folder, **{"environment": mix()} | fields))[0]


def test_any_part_of_a_plan_has_the_shares(tmp_path: Path) -> None:
    plan = planned(tmp_path, num_episodes=30)
    for first, last in ((0, 3), (0, 30), (9, 21)):
        assert Counter(play.environment for play in plan[first:last])["maze"] == (last - first) // 3
    later = planned(tmp_path, num_episodes=12, first_task=9)
    assert [play.task for play in later] == [play.task for play in plan[9:21]]


def test_raising_the_number_of_episodes_only_appends(tmp_path: Path) -> None:
    few, more = planned(tmp_path, num_episodes=10), planned(tmp_path, num_episodes=30)
    assert list(few) == list(more)[:10]
    first = run(tmp_path / "out", environment=mix(), num_episodes=10)
    second = run(tmp_path / "out", environment=mix(), num_episodes=30)
    assert (first.num_played, second.num_played) == (10, 20)


def test_equal_tasks_of_two_environments_are_two_episodes(tmp_path: Path) -> None:
    twins = {"name": "mix", "arguments": {"environments": {"a": SUMS, "b": SUMS}}}
    plan = planned(tmp_path, environment=twins, num_episodes=40)
    assert plan[0].task["task"] == plan[1].task["task"]
    assert len({play.id for play in plan}) == 40


def test_other_shares_are_other_episodes(tmp_path: Path) -> None:
    one, other = ({play.id for play in planned(tmp_path, environment=mix(sums=n), num_episodes=9)} for n in (2, 3))
    assert not one & other
    run(tmp_path / "out", environment=mix(), num_episodes=3)
    with pytest.raises(ConfigError, match="holds a collection with environment"):
        run(tmp_path / "out", environment=mix(sums=3), num_episodes=3)


def test_episodes_and_statistics_tell_the_environments_apart(tmp_path: Path) -> None:
    result = run(tmp_path / "out", environment=mix(), num_episodes=12)
    assert Counter(episode.environment for episode in episodes(result)) == {"sums": 8, "maze": 4}
    groups = json.loads(result.stats_path.read_text())["by"]["environment"]
    assert {name: group["num_episodes"] for name, group in groups.items()} == {"sums": 8, "maze": 4}


def test_too_few_tasks_are_told_with_whose_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 37 tasks .*; lower .*\(maze would need 100; .* take num_tasks.train"):
        planned(tmp_path, num_episodes=300)
    assert len(planned(tmp_path, num_episodes=None)) == 37


@pytest.mark.parametrize("num_episodes", [None, 5])
def test_a_split_without_tasks_is_no_collection_of_nothing(tmp_path: Path, num_episodes: int | None) -> None:
    none = {"name": "math", "arguments": {"num_tasks": {"train": 0}}}
    with pytest.raises(ConfigError, match=r"the train split has no tasks; .*num_tasks\.train=1\)"):
        planned(tmp_path, environment=none, num_episodes=num_episodes)
    lame = {"name": "mix", "arguments": {"environments": {"none": none, "sums": SUMS}}}
    with pytest.raises(ConfigError, match=r"the train split has no tasks; .*\(none would need 1; the built-in"):
        planned(tmp_path, environment=lame, num_episodes=num_episodes)
    empty = {"name": "mix", "arguments": {"environments": {"none": none}, "temperature": 1}}
    with pytest.raises(ConfigError, match=r"the train split has no tasks; .*\(the built-in"):
        planned(tmp_path, environment=empty, num_episodes=num_episodes)


def test_where_nothing_is_mixed_the_environment_has_the_name_of_the_config(tmp_path: Path) -> None:
    assert {play.environment for play in planned(tmp_path, environment=SUMS, num_episodes=3)} == {"math"}
