"""What is SQLite's own: the file, its version, its locks, and what it says when something is wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.contracts.test_stores import episode
from tests.training import WEATHER
from understudy.errors import StoreError
from understudy.formats import read_episodes
from understudy.stores import open_store
from understudy.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with three rows."""
    file = tmp_path / "pool.db"
    with open_store(file, create=True) as store:
        store.add([episode(number) for number in range(3)])
    return file


def test_a_store_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"pool.db: there is no store \(mend: understudy store add .*pool.db DATA"):
        open_store(tmp_path / "pool.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoreError, match=r"cannot be opened .*look whether its folder is there"):
        open_store(tmp_path / "nowhere" / "pool.db", create=True)


@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_store_is_left_alone(tmp_path: Path, create: bool) -> None:
    rows, other, empty = tmp_path / "rows.jsonl", tmp_path / "other.db", tmp_path / "empty.db"
    rows.write_bytes(WEATHER.read_bytes())
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    empty.touch()
    for file in (rows, other) if create else (rows, other, empty):
        before = file.read_bytes()
        with pytest.raises(StoreError, match=f"{file.name}: it is no store, but a file of another kind"):
            open_store(file, create=create)
        assert file.read_bytes() == before
    if create:
        open_store(empty, create=True).close()  # what a kill may have left


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(
        StoreError, match=r"pool.db: the store has schema version 2, this Understudy reads 1 \(mend: install"
    ):
        open_store(path)


def test_a_store_that_stays_locked_is_given_up(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with SqliteStore(path, timeout_seconds=0.05) as store:
        assert len(store.rows()) == 3  # reading waits for nobody
        with pytest.raises(
            StoreError, match=r"pool.db: another process has kept it locked for 0.05 seconds \(mend: look"
        ):
            store.claim("a")
        other.execute("ROLLBACK")
        assert len(store.claim("a").rows) == 3
    other.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_store_that_cannot_be_written_to_says_so(path: Path) -> None:
    path.chmod(0o444)
    with open_store(path) as store, pytest.raises(StoreError, match=r"pool.db: it cannot be written to"):
        store.claim("a")


def test_a_write_that_is_refused_says_so(path: Path) -> None:
    with SqliteStore(path) as store:
        store._connection.execute("PRAGMA query_only = 1")  # what SQLite does on a disk that is read-only
        with pytest.raises(
            StoreError, match=r"pool.db: it cannot be written to \(mend: make the file and its folder writable"
        ):
            store.claim("a")


def test_a_disk_that_is_full_loses_nothing(path: Path) -> None:
    with SqliteStore(path) as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite says of a disk that is full
        with pytest.raises(StoreError, match=r"pool.db: the disk is full"):
            store.add([episode(number, "x" * 10_000) for number in range(10, 20)])
        assert len(store.rows()) == 3


def die_within_a_transaction(path: Path) -> None:
    with SqliteStore(path) as store:
        store._connection.execute("BEGIN IMMEDIATE")
        store._connection.execute("UPDATE rows SET trained_count = 7")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_cuts_off_has_not_happened_and_locks_nobody_out(path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_within_a_transaction, args=(path,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    with SqliteStore(path, timeout_seconds=0.05) as store:
        assert store.counts().splits["train"].num_by_trained_count == {0: 3}
        assert len(store.claim("a").rows) == 3


def test_a_row_that_was_damaged_is_named(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute('UPDATE rows SET episode = \'{"id": 5, "schema_version": 1}\' WHERE number = 2')
    connection.close()
    with open_store(path) as store, pytest.raises(StoreError, match=r"pool.db:2: id: "):
        list(store.read(store.rows()))


def test_a_damaged_file_is_told_from_one_of_another_kind(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with open_store(path) as store, pytest.raises(StoreError, match=r"pool.db: it is damaged"):
        store.rows()


def test_a_row_is_the_native_format_and_any_tool_can_read_it(tmp_path: Path) -> None:
    episodes = list(read_episodes(WEATHER))
    with open_store(tmp_path / "pool.db", create=True) as store:
        store.add(episodes)
    connection = sqlite3.connect(tmp_path / "pool.db")
    rows = [json.loads(text) for (text,) in connection.execute("SELECT episode FROM rows ORDER BY number")]
    assert [row["id"] for row in rows] == [one.id for one in episodes]
    (version,) = connection.execute("SELECT json_extract(episode, '$.schema_version') FROM rows").fetchone()
    assert version == 1
    connection.close()


def test_other_kinds_of_stores_are_not_there_yet() -> None:
    with pytest.raises(StoreError) as caught:
        open_store("mongodb+srv://user:secret@host/db")
    assert str(caught.value).startswith("host/db: there is no store of the kind 'mongodb' (mend: name a file")
