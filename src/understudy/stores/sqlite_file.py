"""The file of the embedded store: its schema, its locks, and SQLite's errors in our words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from understudy.errors import StoreError

SCHEMA_VERSION = 1
"""Is kept in the file as SQLite's ``user_version``."""

APPLICATION_ID = 0x554E4453
"""Tells our files from all other databases: "UNDS", kept as SQLite's ``application_id``."""

DEFAULT_TIMEOUT_SECONDS = 60.0

_SCHEMA = (
    """
    CREATE TABLE claims (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        split TEXT NOT NULL,
        claimed_at REAL NOT NULL,  -- times are seconds since 1970
        lease_until REAL NOT NULL,
        closed_at REAL,  -- acknowledged or released
        acknowledged INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE rows (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,  -- the episode's
        split TEXT NOT NULL,
        episode TEXT NOT NULL,  -- JSON: a row of the format "native"
        added_at REAL NOT NULL,
        trained_count INTEGER NOT NULL DEFAULT 0,
        trained_at REAL,
        claim INTEGER REFERENCES claims (number)  -- that holds it
    )
    """,
    """
    CREATE TABLE claim_rows (
        claim INTEGER NOT NULL REFERENCES claims (number),
        position INTEGER NOT NULL,
        row INTEGER NOT NULL REFERENCES rows (number),
        trained_count INTEGER NOT NULL,  -- the row's, when it was claimed
        trained INTEGER NOT NULL DEFAULT 0,  -- 1: counted for this claim
        PRIMARY KEY (claim, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY,  -- of the episode that it becomes
        owner TEXT,  -- that plays it
        lease_until REAL NOT NULL,
        fault TEXT  -- JSON: the last play, which a fault has ended
    )
    """,
    "CREATE UNIQUE INDEX one_claim_an_owner ON claims (owner) WHERE closed_at IS NULL",
    "CREATE INDEX owners ON claims (owner)",
    "CREATE INDEX least_trained ON rows (split, trained_count, number)",
    "CREATE INDEX held ON rows (claim)",
    "CREATE INDEX claims_of_a_row ON claim_rows (row)",
)


_MENDS = {
    sqlite3.SQLITE_BUSY: (
        "another process has kept it locked for {timeout:g} seconds",
        "look who has it open; a file system without locks, as over a network, cannot hold a store",
    ),
    sqlite3.SQLITE_LOCKED: ("it is locked", "try again"),
    sqlite3.SQLITE_READONLY: (
        "it cannot be written to",
        "make the file and its folder writable, or copy it to a disk that is; reading needs that too",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "look whether its folder is there and can be written to, which reading needs too",
    ),
    sqlite3.SQLITE_PERM: ("it may not be opened", "look at the permissions of the file and its folder"),
    sqlite3.SQLITE_FULL: ("the disk is full", "make room, then try again; nothing of what failed was written"),
    sqlite3.SQLITE_NOTADB: (
        "it is no store, but a file of another kind",
        "name another file: understudy store add makes a store of any data",
    ),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "save what can be saved with sqlite3 FILE .recover, or make it anew"),
    sqlite3.SQLITE_TOOBIG: ("an episode is larger than a row can be", "cut it"),
    sqlite3.SQLITE_IOERR: ("it cannot be read or written", "look at the disk"),
}
"""SQLite's primary result code -> (what is wrong, the mend)."""


class SqliteFile:
    """A connection to a store's file, which is made and held against what a store is.

    Args:
        path: the file.
        create: make it where it is missing.
        timeout_seconds: how long to wait for other processes that write.

    Raises:
        StoreError: it is missing, is no store, is of a newer Understudy, or cannot be opened.
    """

    def __init__(self, path: str | Path, *, create: bool, timeout_seconds: float) -> None:
        self._name = str(path)
        self._timeout_seconds = timeout_seconds
        if not create and not Path(path).is_file():
            raise self.error("there is no store", mend=f"understudy store add {path} DATA … makes one")
        with self.errors():
            self.connection = sqlite3.connect(
                path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False
            )
        try:
            self._open(create=create)
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()

    def _open(self, *, create: bool) -> None:
        """Hold the file against what a store is, and make it one where it is empty and that is wanted."""
        with self.errors():
            if create and self._is_empty():
                with self.transaction():
                    if self._is_empty():  # another process may have been faster
                        for statement in _SCHEMA:
                            self.connection.execute(statement)
                        self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            if self._pragma("application_id") != APPLICATION_ID:
                reason, mend = _MENDS[sqlite3.SQLITE_NOTADB]
                raise self.error(reason, mend=mend)
            version = self._pragma("user_version")
            if version != SCHEMA_VERSION:
                raise self.error(
                    f"the store has schema version {version}, this Understudy reads {SCHEMA_VERSION}",
                    mend="install the version of Understudy that made it",
                )
            if self._pragma("journal_mode") != "wal":
                with contextlib.suppress(sqlite3.OperationalError):  # works without, but readers wait for writers
                    self.connection.execute("PRAGMA journal_mode = WAL")

    def _is_empty(self) -> bool:
        return self._pragma("schema_version") == 0 and self._pragma("application_id") == 0

    def _pragma(self, name: str) -> int | str:
        (value,) = self.connection.execute(f"PRAGMA {name}").fetchone()
        found: int | str = value
        return found

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do what the block does as a whole or not at all, while no other process writes."""
        with self.errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """See one moment of the store for the length of the block."""
        self.connection.execute("BEGIN")
        try:
            yield self.connection
        finally:
            self.connection.execute("COMMIT")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Say in our words what SQLite says."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes stand above the primary one
            reason, mend = _MENDS.get(code, (f"SQLite says: {error}", None))
            raise self.error(reason.format(timeout=self._timeout_seconds), mend=mend) from error

    def error(
        self, reason: str, *, row: int | None = None, field: str | None = None, mend: str | None = None
    ) -> StoreError:
        """Return an error that names the file."""
        return StoreError(reason, file=self._name, row=row, field=field, mend=mend)
