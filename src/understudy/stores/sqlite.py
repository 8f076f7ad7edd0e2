"""The embedded store: rows, claims and tasks in one file of SQLite, for any number of processes of one machine.

A claim is a list of rows that never changes; `rows.claim` says which claim holds a row now. So whatever happens to a
lease, its owner's rows and their order are known, and what others took of them can be told.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from understudy.errors import FormatError, did_you_mean
from understudy.formats import get_format
from understudy.formats.rows import dump_row, parse_row
from understudy.types import Episode

from .base import (
    DEFAULT_LEASE_SECONDS,
    TRAIN,
    Added,
    Claim,
    Lease,
    LeaseLost,
    SplitCounts,
    Store,
    StoreCounts,
)
from .sqlite_file import DEFAULT_TIMEOUT_SECONDS, SqliteFile
from .times import show_time

_ROWS_AT_ONCE = 256
_MAX_NAMES_SHOWN = 3

_FREE = """
    SELECT number FROM rows
    WHERE split = :split
        AND (claim IS NULL OR claim IN (SELECT number FROM claims WHERE lease_until <= :now))
        AND (:max_trained_count IS NULL OR trained_count < :max_trained_count)
        AND (:trained_before IS NULL OR trained_at IS NULL OR trained_at <= :trained_before)
    ORDER BY trained_count, number
    LIMIT :limit
"""

# Rows of a claim that its owner has not acknowledged, and that others hold or have trained since.
_LOST = """
    SELECT mine.row, mine.trained_count, rows.claim FROM claim_rows AS mine JOIN rows ON rows.number = mine.row
    WHERE mine.claim = :claim AND NOT mine.trained AND rows.claim IS NOT :claim AND (
        rows.claim IN (SELECT number FROM claims WHERE lease_until > :now) OR rows.trained_count > mine.trained_count
    )
"""

_TAKERS = f"""
    WITH lost (row, trained_count, holder) AS ({_LOST})
    SELECT DISTINCT claims.owner FROM lost JOIN claim_rows AS other ON other.row = lost.row
    JOIN claims ON claims.number = other.claim
    WHERE other.claim IS NOT :claim
        AND (other.claim IS lost.holder OR (other.trained AND other.trained_count >= lost.trained_count))
    ORDER BY claims.number
"""


class SqliteStore(Store):
    """See the module's docstring.

    Args:
        path: the file.
        create: make it where it is missing.
        timeout_seconds: how long to wait for other processes that write.
        clock: gives seconds since 1970.

    Raises:
        StoreError: it is missing, is no store, is of a newer Understudy, or cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        create: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(str(path))
        self._clock = clock
        self._native = get_format("native")
        self._file = SqliteFile(path, create=create, timeout_seconds=timeout_seconds)
        self._connection = self._file.connection

    def close(self) -> None:
        self._file.close()

    def add(self, episodes: Iterable[Episode], *, split: str = TRAIN) -> Added:
        rows = [(_storable(episode.id), self._encode(episode)) for episode in episodes]
        num_added, now = 0, self._clock()
        with self._file.transaction() as db:
            for id, text in rows:
                added = db.execute(
                    "INSERT INTO rows (id, split, episode, added_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (id, split, text, now),
                )
                num_added += added.rowcount
                if not added.rowcount:
                    self._check_same(id, split, text)
        return Added(num_added, len(rows) - num_added)

    def _encode(self, episode: Episode) -> str:
        try:
            (row,) = self._native.encode(episode).rows
            return dump_row(row).decode()
        except FormatError as error:
            raise FormatError(f"episode {episode.id!r} cannot be stored: {error}", file=self.address) from error

    def _check_same(self, id: str, split: str, text: str) -> None:
        """Refuse an episode that is there as another one."""
        number, held_split, held = self._connection.execute(
            "SELECT number, split, episode FROM rows WHERE id = ?", (id,)
        ).fetchone()
        if held != text:
            mend = "give it another id, or leave it out; an episode in a store never changes"
            raise self._file.error(
                f"episode {id!r} is there already, with another content", row=number, field="id", mend=mend
            )
        if held_split != split:
            mend = "what is validated on must not be trained on: leave it out of one of the two"
            reason = f"episode {id!r} is there already, in the split {held_split!r} and not {split!r}"
            raise self._file.error(reason, row=number, field="split", mend=mend)

    def claim(
        self,
        owner: str,
        *,
        split: str = TRAIN,
        limit: int | None = None,
        max_trained_count: int | None = None,
        retrained_interval_seconds: float | None = None,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
    ) -> Claim:
        with self._file.transaction() as db:
            now = self._clock()
            held = db.execute("SELECT number, split FROM claims WHERE owner = ? AND closed_at IS NULL", (owner,))
            if found := held.fetchone():
                if found[1] != split:
                    reason = f"{owner!r} holds rows of the split {found[1]!r} and asks for {split!r}"
                    raise self._file.error(reason, mend="acknowledge or release them first")
                return self._take_again(found[0], owner, now, lease_seconds)
            rows = self._free(now, split, limit, max_trained_count, retrained_interval_seconds)
            if rows:
                number = db.execute(
                    "INSERT INTO claims (owner, split, claimed_at, lease_until) VALUES (?, ?, ?, ?)",
                    (owner, split, now, now + lease_seconds),
                ).lastrowid
                db.executemany(
                    "INSERT INTO claim_rows (claim, position, row, trained_count) "
                    "SELECT ?, ?, number, trained_count FROM rows WHERE number = ?",
                    ((number, position, row) for position, row in enumerate(rows)),
                )
                db.executemany("UPDATE rows SET claim = ? WHERE number = ?", ((number, row) for row in rows))
        return Claim(owner, rows, now + lease_seconds)

    def free(
        self,
        *,
        split: str = TRAIN,
        limit: int | None = None,
        max_trained_count: int | None = None,
        retrained_interval_seconds: float | None = None,
    ) -> tuple[int, ...]:
        with self._file.errors():
            return self._free(self._clock(), split, limit, max_trained_count, retrained_interval_seconds)

    def _free(
        self, now: float, split: str, limit: int | None, max_trained_count: int | None, interval: float | None
    ) -> tuple[int, ...]:
        values = {
            "split": split,
            "now": now,
            "max_trained_count": max_trained_count,
            "trained_before": None if interval is None else now - interval,
            "limit": -1 if limit is None else limit,
        }
        return tuple(number for (number,) in self._connection.execute(_FREE, values))

    def resume(self, owner: str, *, lease_seconds: float = DEFAULT_LEASE_SECONDS) -> Claim | None:
        with self._file.transaction():
            found = self._last_claim(owner)
            return None if found is None else self._take_again(found[0], owner, self._clock(), lease_seconds)

    def renew(self, owner: str, *, lease_seconds: float = DEFAULT_LEASE_SECONDS) -> float:
        with self._file.transaction():
            found = self._last_claim(owner)
            if found is None:
                raise self._file.error(f"{owner!r} holds no rows", mend=self._how_to_claim(owner))
            claim, closed_at, _ = found
            if closed_at is not None:
                reason = f"{owner!r} holds no rows: they were released or acknowledged at {show_time(closed_at)}"
                raise LeaseLost(reason, file=self.address, mend="claim some")
            return self._take_again(claim, owner, self._clock(), lease_seconds).lease_until

    def acknowledge(self, owner: str, rows: Collection[int] | None = None) -> int:
        with self._file.transaction() as db:
            found = self._last_claim(owner)
            if found is None:
                raise self._file.error(f"{owner!r} has claimed no rows", mend=self._how_to_claim(owner))
            claim, _, is_acknowledged = found
            if is_acknowledged:
                return 0
            now = self._clock()
            self._check_kept(claim, owner, now)
            claimed: dict[int, int] = dict(
                db.execute("SELECT row, trained FROM claim_rows WHERE claim = ?", (claim,)).fetchall()
            )
            if strangers := sorted(set(rows or ()) - claimed.keys()):
                raise self._file.error(f"{owner!r} has not claimed this row", row=strangers[0])
            counted = [row for row, trained in claimed.items() if not trained and (rows is None or row in rows)]
            db.executemany(
                "UPDATE rows SET trained_count = trained_count + 1, trained_at = ? WHERE number = ?",
                ((now, row) for row in counted),
            )
            db.executemany(
                "UPDATE claim_rows SET trained = 1 WHERE claim = ? AND row = ?", ((claim, row) for row in counted)
            )
            db.execute("UPDATE claims SET acknowledged = 1 WHERE number = ?", (claim,))
            self._let_go(claim, now)
        return len(counted)

    def release(self, owner: str) -> int:
        with self._file.transaction():
            found = self._last_claim(owner)
            return self._let_go(found[0], self._clock()) if found is not None and found[1] is None else 0

    def _last_claim(self, owner: str) -> tuple[int, float | None, int] | None:
        """Return number, end, and whether it was acknowledged, of the owner's last claim; None where it has none."""
        found: tuple[int, float | None, int] | None = self._connection.execute(
            "SELECT number, closed_at, acknowledged FROM claims WHERE owner = ? ORDER BY number DESC LIMIT 1", (owner,)
        ).fetchone()
        return found

    def _take_again(self, claim: int, owner: str, now: float, lease_seconds: float) -> Claim:
        """Hold a claim's rows, but those that are acknowledged, for so long from now on."""
        self._check_kept(claim, owner, now)
        db = self._connection
        db.execute(
            "UPDATE rows SET claim = :claim WHERE claim IS NOT :claim AND number IN "
            "(SELECT row FROM claim_rows WHERE claim = :claim AND NOT trained)",
            {"claim": claim},
        )
        db.execute(
            "UPDATE claims SET lease_until = ?, closed_at = NULL, acknowledged = 0 WHERE number = ?",
            (now + lease_seconds, claim),
        )
        rows = db.execute("SELECT row FROM claim_rows WHERE claim = ? ORDER BY position", (claim,))
        return Claim(owner, tuple(number for (number,) in rows), now + lease_seconds)

    def _let_go(self, claim: int, now: float) -> int:
        """End a claim; return how many rows it held."""
        self._connection.execute(
            "UPDATE claims SET closed_at = :now, lease_until = min(lease_until, :now) WHERE number = :claim",
            {"now": now, "claim": claim},
        )
        return self._connection.execute("UPDATE rows SET claim = NULL WHERE claim = ?", (claim,)).rowcount

    def _check_kept(self, claim: int, owner: str, now: float) -> None:
        """Refuse to go on with a claim of which others have taken rows.

        Raises:
            LeaseLost: says by whom.
        """
        db, values = self._connection, {"claim": claim, "now": now}
        num_lost = len(db.execute(_LOST, values).fetchall())
        if not num_lost:
            return
        names = [repr(name) for (name,) in db.execute(_TAKERS, values)]
        shown = ", ".join(names[:_MAX_NAMES_SHOWN]) + (" and others" if len(names) > _MAX_NAMES_SHOWN else "")
        (ended, num_rows) = db.execute(
            "SELECT lease_until, (SELECT count(*) FROM claim_rows WHERE claim = number) FROM claims WHERE number = ?",
            (claim,),
        ).fetchone()
        raise LeaseLost(
            f"the lease of {owner!r} ended at {show_time(ended)}, and since then {num_lost:,} of its {num_rows:,} rows "
            f"were claimed by {shown}",
            file=self.address,
            mend="release what is left of it and claim other rows; give a longer lease where its owner was alive",
        )

    def _how_to_claim(self, owner: str) -> str:
        """Return the mend for an owner that has claimed nothing, which may be called otherwise."""
        owners = [name for (name,) in self._connection.execute("SELECT DISTINCT owner FROM claims")]
        return f"claim some first.{did_you_mean(owner, owners)}"

    def rows(self, split: str | None = None, *, through: int | None = None) -> tuple[int, ...]:
        with self._file.errors():
            found = self._connection.execute(
                "SELECT number FROM rows WHERE (:split IS NULL OR split = :split) "
                "AND (:through IS NULL OR number <= :through) ORDER BY number",
                {"split": split, "through": through},
            )
            return tuple(number for (number,) in found)

    def read(self, rows: Iterable[int]) -> Iterator[tuple[int, Episode]]:
        wanted = list(rows)
        for start in range(0, len(wanted), _ROWS_AT_ONCE):
            part = wanted[start : start + _ROWS_AT_ONCE]
            marks = ", ".join("?" * len(part))
            with self._file.errors():
                found: dict[int, tuple[str, str]] = {
                    number: (id, text)
                    for number, id, text in self._connection.execute(
                        f"SELECT number, id, episode FROM rows WHERE number IN ({marks})", part
                    )
                }
            for number in part:
                if number not in found:
                    raise self._file.error("there is no such row", row=number)
                yield number, self._decode(number, *found[number])

    def _decode(self, number: int, id: str, text: str) -> Episode:
        try:
            (episode,) = self._native.decode(parse_row(text.encode()), id=id)
        except FormatError as error:
            raise self._file.error(error.reason, row=number, field=error.field, mend=error.mend) from error
        return episode

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._file.errors():
            for id in ids:
                row = self._connection.execute("SELECT number FROM rows WHERE id = ?", (_storable(id),)).fetchone()
                if row is not None:
                    found[id] = row[0]
        return found

    def claim_tasks(self, owner: str, ids: Sequence[str], *, lease_seconds: float) -> tuple[str, ...]:
        with self._file.transaction() as db:
            now = self._clock()
            taken = []
            for id in ids:
                claimed = db.execute(
                    "INSERT INTO tasks (id, owner, lease_until) SELECT :id, :owner, :until "
                    "WHERE NOT EXISTS (SELECT 1 FROM rows WHERE id = :id) "
                    "ON CONFLICT (id) DO UPDATE SET owner = :owner, lease_until = :until "
                    "WHERE owner IS NULL OR owner = :owner OR lease_until <= :now",
                    {"id": _storable(id), "owner": owner, "until": now + lease_seconds, "now": now},
                )
                taken += [id] if claimed.rowcount else []
        return tuple(taken)

    def renew_tasks(self, owner: str, *, lease_seconds: float) -> int:
        with self._file.transaction() as db:
            until = self._clock() + lease_seconds
            return db.execute("UPDATE tasks SET lease_until = ? WHERE owner = ?", (until, owner)).rowcount

    def finish_task(self, owner: str, episode: Episode, *, split: str = TRAIN) -> bool:
        id, text = _storable(episode.id), self._encode(episode)
        with self._file.transaction() as db:
            now = self._clock()
            held = db.execute("SELECT owner, lease_until FROM tasks WHERE id = ?", (id,)).fetchone()
            is_others = held is not None and held[0] not in (None, owner) and held[1] > now
            if is_others or db.execute("SELECT 1 FROM rows WHERE id = ?", (id,)).fetchone():
                return False
            if episode.error is not None:
                db.execute(
                    "INSERT INTO tasks (id, lease_until, fault) VALUES (:id, :now, :text) "
                    "ON CONFLICT (id) DO UPDATE SET owner = NULL, lease_until = :now, fault = :text",
                    {"id": id, "now": now, "text": text},
                )
                return True
            db.execute("INSERT INTO rows (id, split, episode, added_at) VALUES (?, ?, ?, ?)", (id, split, text, now))
            db.execute("DELETE FROM tasks WHERE id = ?", (id,))
        return True

    def release_tasks(self, owner: str) -> int:
        with self._file.transaction() as db:
            num_tasks = db.execute("UPDATE tasks SET owner = NULL WHERE owner = ?", (owner,)).rowcount
            db.execute("DELETE FROM tasks WHERE owner IS NULL AND fault IS NULL")
        return num_tasks

    def open_tasks(self, ids: Sequence[str]) -> tuple[str, ...]:
        with self._file.errors(), self._file.reading() as db:
            values = {"now": self._clock()}
            closed = (
                "SELECT 1 FROM tasks WHERE id = :id AND fault IS NOT NULL AND (owner IS NULL OR lease_until <= :now)"
            )
            is_closed = f"SELECT EXISTS (SELECT 1 FROM rows WHERE id = :id) OR EXISTS ({closed})"
            return tuple(id for id in ids if not db.execute(is_closed, values | {"id": _storable(id)}).fetchone()[0])

    def faults(self, ids: Iterable[str]) -> dict[str, Episode]:
        found: dict[str, Episode] = {}
        with self._file.errors():
            for id in ids:
                row = self._connection.execute("SELECT fault FROM tasks WHERE id = ?", (_storable(id),)).fetchone()
                if row is not None and row[0] is not None:
                    (found[id],) = self._native.decode(parse_row(row[0].encode()), id=id)
        return found

    def counts(self) -> StoreCounts:
        values = {"now": self._clock()}
        with self._file.errors(), self._file.reading() as db:
            trained: dict[str, dict[int, int]] = defaultdict(dict)
            for split, count, num_rows in db.execute(
                "SELECT split, trained_count, count(*) FROM rows GROUP BY 1, 2 ORDER BY 1, 2"
            ):
                trained[split][count] = num_rows
            leased = dict(
                db.execute(
                    "SELECT rows.split, count(*) FROM rows JOIN claims ON claims.number = rows.claim "
                    "WHERE lease_until > :now GROUP BY rows.split",
                    values,
                ).fetchall()
            )
            leases = db.execute(
                "SELECT owner, claims.split, count(*), claimed_at, lease_until FROM rows "
                "JOIN claims ON claims.number = rows.claim GROUP BY claims.number ORDER BY claims.number"
            ).fetchall()
            num_tasks = dict(
                db.execute(
                    "SELECT owner, count(*) FROM tasks WHERE owner IS NOT NULL AND lease_until > :now GROUP BY owner",
                    values,
                ).fetchall()
            )
            (num_faults,) = db.execute("SELECT count(*) FROM tasks WHERE fault IS NOT NULL").fetchone()
        splits = {
            name: SplitCounts(sum(by_count.values()), leased.get(name, 0), by_count)
            for name, by_count in trained.items()
        }
        return StoreCounts(splits, tuple(Lease(*lease) for lease in leases), num_tasks, num_faults)


def _storable(text: str) -> str:
    """Return text that SQLite takes: half of a surrogate pair has no UTF-8, and becomes its escape."""
    return text.encode(errors="backslashreplace").decode()
