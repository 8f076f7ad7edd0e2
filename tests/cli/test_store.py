"""understudy store add, show, export and release"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.commands import WEATHER
from understudy.cli.main import main
from understudy.formats import read_episodes, write_episodes
from understudy.stores import open_store


@pytest.fixture
def pool(tmp_path: Path, capsys) -> Path:
    """A store with the six example conversations."""
    path = tmp_path / "pool.db"
    assert main(["store", "add", str(path), str(WEATHER)]) == 0
    capsys.readouterr()
    return path


def test_any_format_is_added_and_again_changes_nothing(tmp_path, capsys) -> None:
    pool, rows = tmp_path / "pool.db", tmp_path / "rows.json"
    write_episodes(rows, read_episodes(WEATHER), "sharegpt")
    assert main(["store", "add", str(pool), str(WEATHER), "--limit", "2"]) == 0
    assert f"{pool}: made and added 2 episodes to the split 'train'. It has: train 2" in capsys.readouterr().err
    assert main(["store", "add", str(pool), str(WEATHER)]) == 0
    assert "added 4 episodes to the split 'train'; 2 were there already. It has: train 6" in capsys.readouterr().err
    assert main(["store", "add", str(tmp_path / "other.db"), str(rows), "--split", "validation"]) == 0
    assert "It has: validation 6" in capsys.readouterr().err


def test_an_id_that_is_taken_is_named_and_what_was_added_before_stays(pool, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("understudy.cli.store.add.EPISODES_AT_ONCE", 2)
    rows = tmp_path / "rows.jsonl"
    new = '{"id": "new-%d", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    rows.write_text(new % 1 + new % 2 + new % 3 + (new % 0).replace("new-0", "weather-2"))
    assert main(["store", "add", str(pool), str(rows)]) == 1
    account = capsys.readouterr().err
    assert "added 2 episodes to the split 'train'. It has: train 8" in account
    assert f"error: {pool}:2: id: episode 'weather-2' is there already, with another content (mend: " in account


def test_rows_without_an_id_are_known_by_their_content(tmp_path, capsys, monkeypatch) -> None:
    rows, pool = tmp_path / "rows.jsonl", tmp_path / "pool.db"
    new = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "b"}]}\n'
    rows.write_text(new % 1 + new % 2)
    monkeypatch.chdir(tmp_path)
    assert main(["store", "add", str(pool), "rows.jsonl"]) == 0
    rows.write_text(new % 0 + new % 1 + new % 2)
    for name in ("./rows.jsonl", str(rows)):
        assert main(["store", "add", str(pool), name]) == 0
    assert "added 0 episodes to the split 'train'; 3 were there already. It has: train 3" in capsys.readouterr().err


def test_bad_rows_are_passed_over_and_kept_where_that_is_asked_for(pool, tmp_path, capsys) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": 7}\n')
    assert main(["store", "add", str(pool), str(rows), "--format", "messages"]) == 1
    assert f"{rows}:1: messages: " in capsys.readouterr().err
    assert main(["store", "add", str(pool), str(rows), "--format", "messages", "--skip-bad"]) == 0
    assert f"1 of 1 rows could not be read; they are in {pool}.rejects.jsonl" in capsys.readouterr().err


def test_a_store_is_not_made_where_there_is_nothing_to_add(tmp_path, capsys) -> None:
    assert main(["store", "add", str(tmp_path / "pool.db"), str(tmp_path / "missing.jsonl")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_rows_and_leases_are_shown(pool, capsys) -> None:
    assert main(["store", "show", str(pool)]) == 0
    assert "nobody holds rows" in capsys.readouterr().out
    with open_store(pool) as store:
        store.claim("first", limit=2)
        store.acknowledge("first")
        store.claim("second", limit=3)
        store.claim("late", limit=1, lease_seconds=-1)
    assert main(["store", "show", str(pool)]) == 0
    shown = capsys.readouterr().out
    assert "never 4, once 2" in shown
    assert [line.split()[:3] for line in shown.splitlines() if "UTC" in line] == [
        ["second", "train", "3"],
        ["late", "train", "1"],
    ]
    assert shown.count("(ran out)") == 1
    assert main(["store", "show", str(pool), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    split = {"num_rows": 6, "num_leased": 3, "num_by_trained_count": {"0": 4, "1": 2}}
    assert value["splits"] == {"train": split}
    assert [lease["owner"] for lease in value["leases"]] == ["second", "late"]


def test_a_store_is_exported_without_a_loss(pool, tmp_path, capsys) -> None:
    for name in ("out.jsonl", "out.parquet"):
        assert main(["store", "export", str(pool), str(tmp_path / name)]) == 0
        assert list(read_episodes(tmp_path / name)) == list(read_episodes(WEATHER))
    assert f"wrote 6 episodes to {tmp_path / 'out.parquet'}" in capsys.readouterr().err
    assert main(["store", "export", str(pool), str(tmp_path / "out.jsonl")]) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert main(["store", "export", str(pool), str(pool), "--overwrite"]) == 2
    assert "is the store itself" in capsys.readouterr().err
    assert main(["store", "export", str(pool), str(tmp_path / "out.jsonl"), "--overwrite", "--split", "test"]) == 1
    assert "there is no row of the split 'test'; it has: train" in capsys.readouterr().err
    assert main(["store", "export", str(pool), "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_rows_of_a_dead_owner_are_freed(pool, capsys) -> None:
    with open_store(pool) as store:
        store.claim("owner-1", limit=4)
    assert main(["store", "release", str(pool), "owner-2"]) == 2
    said = "nothing is held by 'owner-2'. Did you mean 'owner-1'? Rows or tasks are held by: owner-1"
    assert said in capsys.readouterr().err
    assert main(["store", "release", str(pool), "owner-1"]) == 0
    assert "4 rows are free again" in capsys.readouterr().err
    with open_store(pool) as store:
        assert len(store.free()) == 6


def test_tasks_that_are_played_are_shown_and_freed(pool, capsys) -> None:
    with open_store(pool) as store:
        (weather,) = [one for _, one in store.read([1])]
        store.claim_tasks("collector", ["a", "b"], lease_seconds=60)
        store.finish_task("collector", replace(weather, id="a", error="the line went dead"))
    assert main(["store", "show", str(pool)]) == 0
    shown = capsys.readouterr().out
    assert "tasks being played by collector: 1" in shown
    assert "tasks ended by a fault, which are no rows: 1" in shown
    assert main(["store", "release", str(pool), "collector"]) == 0
    assert "0 rows and 1 tasks are free again" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["show", "export", "release"])
def test_what_is_no_store_is_said_so(tmp_path, capsys, verb: str) -> None:
    more = {"show": [], "export": ["x.jsonl"], "release": ["x"]}[verb]
    assert main(["store", verb, str(WEATHER), *more]) == 1
    assert f"error: {WEATHER}: it is no store, but a file of another kind" in capsys.readouterr().err
    assert main(["store", verb, str(tmp_path / "no.db"), *more]) == 1
    assert "there is no store (mend: understudy store add" in capsys.readouterr().err
