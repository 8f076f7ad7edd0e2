"""Collections that share a store play each task once, and each ends with all episodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.collect.test_collection import FLAKY, Flaky, episodes, run
from understudy.collect import CollectResult
from understudy.collect import shared as module
from understudy.errors import ConfigError
from understudy.stores import open_store

NUM = 40
IN_A_CHILD = """
import json, sys
from understudy.collect import CollectConfig, collect
from understudy.config import config_from_dict
result = collect(config_from_dict(CollectConfig, json.loads(sys.argv[1])))
print(result.num_played, result.num_episodes)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)


def share(folder: Path, pool: Path, **fields: Any) -> CollectResult:
    return run(folder, **{"store": {"path": str(pool)}, "num_episodes": NUM} | fields)


def start(folder: Path, pool: Path, *, lease_seconds: float = 60, **fields: Any) -> subprocess.Popen[str]:
    """Start a collection in a process of its own."""
    config = {
        "environment": {"name": "math"},
        "policy": {"name": "expert"},
        "num_episodes": NUM,
        "output_dir": str(folder),
        "concurrency": 4,
        "store": {"path": str(pool), "lease_seconds": lease_seconds},
    }
    command = [sys.executable, "-c", IN_A_CHILD, json.dumps(config | fields)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def num_rows(pool: Path) -> int:
    if not pool.exists():
        return 0
    with open_store(pool, create=True) as store:
        return len(store.rows())


def without_time(found: list[Any]) -> list[Any]:
    return [(one.id, one.task, one.seed, one.trajectories) for one in found]


def test_a_collection_into_a_store_is_the_same_as_one_into_a_file(tmp_path) -> None:
    alone, into = run(tmp_path / "alone", num_episodes=NUM), share(tmp_path / "into", tmp_path / "pool.db")
    assert (into.num_played, into.num_episodes, into.num_successes) == (NUM, NUM, alone.num_successes)
    assert without_time(episodes(into)) == without_time(episodes(alone))
    with open_store(tmp_path / "pool.db") as store:
        assert {one.id for _, one in store.read(store.rows("train"))} == {one.id for one in episodes(alone)}
        assert store.counts().num_tasks == {}
    again = share(tmp_path / "another", tmp_path / "pool.db")
    assert (again.num_played, again.num_episodes) == (0, NUM)
    assert episodes(again) == episodes(into)
    assert share(tmp_path / "into", tmp_path / "pool.db", num_episodes=NUM + 5).num_played == 5


def test_several_collections_share_the_tasks_and_each_ends_with_all_episodes(tmp_path) -> None:
    pool = tmp_path / "pool.db"
    processes = [start(tmp_path / f"run{number}", pool) for number in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    played = [tuple(map(int, out.split())) for out, _ in outputs]
    assert sum(number for number, _ in played) == NUM
    assert [number for _, number in played] == [NUM] * 3
    files = [next((tmp_path / f"run{number}").glob("episodes_*.jsonl")).read_bytes() for number in range(3)]
    assert files[0] == files[1] == files[2]
    assert num_rows(pool) == NUM


def test_no_task_is_lost_or_there_twice_when_a_collection_is_killed(tmp_path) -> None:
    pool = tmp_path / "pool.db"
    process = start(tmp_path / "killed", pool, lease_seconds=1, num_episodes=4000, concurrency=64)
    deadline = time.monotonic() + 60
    while num_rows(pool) < 50:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    with open_store(pool) as store:
        there = len(store.rows())
        assert sum(store.counts().num_tasks.values()) > 0  # it was playing
    result = share(tmp_path / "heir", pool, num_episodes=there + 200)  # waits for what was under way
    assert result.num_episodes == there + 200
    ids = [one.id for one in episodes(result)]
    with open_store(pool) as store:
        assert sorted(ids) == sorted(one.id for _, one in store.read(store.rows()))


def test_a_collection_that_was_killed_goes_on_in_its_folder_without_waiting_for_itself(tmp_path) -> None:
    pool = tmp_path / "pool.db"
    with open_store(pool, create=True) as store:
        tasks = [one.id for one in episodes(run(tmp_path / "alone", num_episodes=NUM))]
        owner = f"{module.platform.node()}:{(tmp_path / 'run').resolve()}"
        assert store.claim_tasks(owner, tasks[:4], lease_seconds=10**6) == tuple(tasks[:4])
    assert share(tmp_path / "run", pool).num_played == NUM


def test_what_a_fault_has_ended_is_no_row_and_is_played_again_by_the_next_start(tmp_path) -> None:
    Flaky.plays.clear()
    pool, settings = tmp_path / "pool.db", {"policy": FLAKY, "stop_after_errors": None}
    first = share(tmp_path / "run", pool, **settings)
    assert 0 < first.num_errors < NUM
    assert first.num_episodes == NUM
    assert num_rows(pool) == NUM - first.num_errors
    second = share(tmp_path / "run", pool, **settings)
    assert (second.num_errors, second.num_played) == (0, first.num_errors)
    assert num_rows(pool) == NUM


def test_a_notebook_shares_too(tmp_path) -> None:
    async def cell() -> CollectResult:
        return share(tmp_path / "run", tmp_path / "pool.db")

    assert asyncio.run(cell()).num_played == NUM


def test_a_collection_does_not_change_where_it_plays_into(tmp_path) -> None:
    run(tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a collection with store None"):
        share(tmp_path / "run", tmp_path / "pool.db")
