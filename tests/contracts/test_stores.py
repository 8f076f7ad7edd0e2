"""Every store of the table goes through one suite."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from understudy import registry
from understudy.errors import StoreError
from understudy.stores import Added, LeaseLost, Store, open_store
from understudy.types import Episode, Message

NAMES = list(registry.TABLES["stores"])
LEASE = 60.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def episode(number: int, text: str = "hello") -> Episode:
    messages = [Message("user", f"{number}"), Message("assistant", text)]
    return Episode.from_messages(messages, id=f"e{number}", metadata={"k": [number, None]})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=NAMES)
def open_(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Store]]:
    """Opens the one store again and again, as processes would."""
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(registry.load("stores", request.param)(tmp_path / "pool.db", create=True, clock=clock))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_: Callable[[], Store]) -> Store:
    """A store with ten rows to train on and two to validate on."""
    found = open_()
    found.add([episode(number) for number in range(10)])
    found.add([episode(number) for number in range(10, 12)], split="validation")
    return found


def ids(store: Store, rows: tuple[int, ...]) -> list[str]:
    return [found.id for _, found in store.read(rows)]


def trained(store: Store, split: str = "train") -> dict[int, int]:
    return dict(store.counts().splits[split].num_by_trained_count)


def test_what_is_added_comes_back_without_a_loss(store: Store) -> None:
    assert [found for _, found in store.read(store.rows("train"))] == [episode(number) for number in range(10)]
    said = [Message("user", "\ud800\u2028\x00 ☃"), Message("assistant", "ok")]
    odd = Episode.from_messages(said, id="\ud800", metadata={"large": 2**70})
    store.add([odd])
    assert [found for _, found in store.read(store.rows("train")[-1:])] == [odd]


def test_adding_twice_changes_nothing(store: Store) -> None:
    before = store.counts()
    assert store.add([episode(number) for number in range(8, 10)]) == Added(0, 2)
    assert store.counts() == before
    assert store.add([episode(9), episode(20), episode(20)]) == Added(1, 2)


def test_an_episode_never_changes_and_never_stands_in_two_splits(store: Store) -> None:
    with pytest.raises(
        StoreError, match=r"pool.db:4: id: episode 'e3' is there already, with another content \(mend: "
    ):
        store.add([episode(30), episode(3, "other")])
    with pytest.raises(StoreError, match=r"'e10' is there already, in the split 'validation' and not 'train'"):
        store.add([episode(31), episode(10)])
    assert len(store.rows()) == 12  # all or none


def test_rows_are_read_in_the_order_that_is_asked_for(store: Store) -> None:
    assert ids(store, (3, 1, 3)) == ["e2", "e0", "e2"]
    with pytest.raises(StoreError, match="99: there is no such row"):
        ids(store, (1, 99))
    assert store.rows("train", through=4) == (1, 2, 3, 4)
    assert store.rows("nothing") == ()


def test_what_is_claimed_is_held_by_one_owner_only(store: Store, open_: Callable[[], Store]) -> None:
    other = open_()
    first = store.claim("a", limit=6, lease_seconds=LEASE)
    assert ids(store, first.rows) == [f"e{number}" for number in range(6)]
    second = other.claim("b", limit=6, lease_seconds=LEASE)
    assert ids(other, second.rows) == ["e6", "e7", "e8", "e9"]
    assert store.claim("c", lease_seconds=LEASE).rows == ()
    assert store.counts().splits["train"].num_leased == 10
    assert [(lease.owner, lease.num_rows) for lease in store.counts().leases] == [("a", 6), ("b", 4)]


def test_splits_are_respected(store: Store) -> None:
    assert ids(store, store.claim("a", split="validation").rows) == ["e10", "e11"]
    assert len(store.claim("b").rows) == 10
    with pytest.raises(StoreError, match="'a' holds rows of the split 'validation' and asks for 'train'"):
        store.claim("a")


def test_an_owner_that_asks_again_gets_the_same_rows_in_the_same_order(store: Store, clock: Clock) -> None:
    store.claim("early", limit=1)
    store.acknowledge("early")
    first = store.claim("a", limit=9, lease_seconds=LEASE)
    store.claim("b", limit=1, lease_seconds=LEASE)
    for seconds in (1, LEASE + 1):  # also when the lease ran out and nobody came
        clock.pass_(seconds)
        again = store.claim("a", limit=2, lease_seconds=LEASE)
        assert again.rows == first.rows
        assert again.lease_until == clock.now + LEASE


def test_a_lease_that_runs_out_goes_back_to_all(store: Store, clock: Clock) -> None:
    store.claim("a", limit=4, lease_seconds=LEASE)
    clock.pass_(LEASE - 1)
    assert len(store.free()) == 6
    clock.pass_(1)
    assert len(store.free()) == 10
    assert len(store.claim("b", lease_seconds=LEASE).rows) == 10


def test_a_lease_that_is_renewed_does_not_run_out(store: Store, clock: Clock) -> None:
    store.claim("a", lease_seconds=LEASE)
    for _ in range(5):
        clock.pass_(LEASE / 2)
        assert store.renew("a", lease_seconds=LEASE) == clock.now + LEASE
        assert store.free() == ()
    with pytest.raises(StoreError, match="'nobody' holds no rows"):
        store.renew("nobody")
    store.release("a")
    with pytest.raises(LeaseLost, match=r"'a' holds no rows: they were released or acknowledged at .* UTC"):
        store.renew("a")
    assert store.acknowledge("a") == 10  # it has trained on them, and nobody else has


def test_who_lost_a_lease_is_told_by_whom_it_was_taken_and_counts_nothing(store: Store, clock: Clock) -> None:
    store.claim("a", limit=4, lease_seconds=LEASE)
    clock.pass_(LEASE)
    store.claim("b", limit=2, lease_seconds=LEASE)
    for attempt in (store.renew, store.acknowledge, store.claim, store.resume):
        with pytest.raises(
            LeaseLost, match=r"the lease of 'a' ended at .* UTC, and since then 2 of its 4 rows were claimed by 'b'"
        ):
            attempt("a")
    store.acknowledge("b")
    with pytest.raises(LeaseLost, match="claimed by 'b'"):
        store.acknowledge("a")
    assert trained(store) == {0: 8, 1: 2}
    assert store.release("a") == 2
    assert len(store.claim("a").rows) == 10


def test_who_was_late_and_met_nobody_has_lost_nothing(store: Store, clock: Clock) -> None:
    first = store.claim("a", limit=4, lease_seconds=LEASE)
    clock.pass_(LEASE)
    store.claim("b", limit=2, lease_seconds=LEASE)
    store.release("b")
    assert store.resume("a").rows == first.rows
    assert store.acknowledge("a") == 4


def test_what_is_acknowledged_is_counted_once_and_free_again(store: Store) -> None:
    store.claim("a", limit=4)
    assert store.acknowledge("a") == 4
    assert store.acknowledge("a") == 0
    assert trained(store) == {0: 6, 1: 4}
    assert store.counts().leases == ()
    with pytest.raises(StoreError, match=r"'b' has claimed no rows \(mend: claim some first"):
        store.acknowledge("b")


def test_only_what_was_used_is_counted_where_that_is_said(store: Store) -> None:
    first = store.claim("a", limit=4)
    with pytest.raises(StoreError, match=":9: 'a' has not claimed this row"):
        store.acknowledge("a", {9})
    assert store.acknowledge("a", first.rows[:1]) == 1
    assert trained(store) == {0: 9, 1: 1}
    assert len(store.free()) == 10


def test_rows_that_were_trained_least_come_first(store: Store) -> None:
    store.claim("a", limit=4)
    store.acknowledge("a")
    assert ids(store, store.claim("b", limit=7).rows) == [f"e{n}" for n in (4, 5, 6, 7, 8, 9, 0)]


def test_nothing_is_trained_more_often_than_it_may_be(store: Store) -> None:
    for round in range(3):
        rows = store.claim(f"run {round}", max_trained_count=2, limit=8).rows
        assert len(rows) == (8, 8, 4)[round]
        store.acknowledge(f"run {round}")
    assert store.claim("last", max_trained_count=2).rows == ()
    assert trained(store) == {2: 10}


def test_nothing_is_trained_again_before_its_time(store: Store, clock: Clock) -> None:
    store.claim("a", limit=4)
    store.acknowledge("a")
    clock.pass_(99)
    assert len(store.free(retrained_interval_seconds=100)) == 6
    clock.pass_(1)
    assert len(store.free(retrained_interval_seconds=100)) == 10


def test_what_is_released_is_free_and_uncounted(store: Store) -> None:
    store.claim("a", limit=4)
    assert store.release("a") == 4
    assert store.release("a") == store.release("nobody") == 0
    assert trained(store) == {0: 10}
    assert len(store.free()) == 10


def test_a_claim_that_has_ended_can_be_gone_on_with_and_counts_only_what_it_had_not(store: Store) -> None:
    first = store.claim("a", limit=4)
    store.acknowledge("a", first.rows[:3])
    assert store.resume("nobody") is None
    assert store.resume("a").rows == first.rows
    assert len(store.free()) == 9  # what it has acknowledged may be trained by others
    assert store.acknowledge("a") == 1
    assert trained(store) == {0: 6, 1: 4}


def test_a_claim_that_has_ended_cannot_be_gone_on_with_when_others_took_its_rest(store: Store) -> None:
    first = store.claim("a", limit=4)
    store.acknowledge("a", first.rows[:3])
    store.claim("b", limit=1)  # the one that was left: it comes first
    with pytest.raises(LeaseLost, match="1 of its 4 rows were claimed by 'b'"):
        store.resume("a")
    store.release("b")
    assert store.resume("a").rows == first.rows
    store.acknowledge("a")
    assert trained(store) == {0: 6, 1: 4}


def test_two_that_come_back_do_not_both_count(store: Store) -> None:
    for owner in "ab":
        store.claim(owner, limit=4)
        store.release(owner)
    assert store.resume("a") is not None
    store.acknowledge("a")
    with pytest.raises(LeaseLost, match="claimed by 'a'"):
        store.resume("b")


def claim_all(path: Path, owner: str, start: Any, found: Any) -> None:
    """Claim three rows at a time until nothing is free."""
    start.wait()
    with open_store(path, create=True) as store:
        while rows := store.claim(owner, limit=3, max_trained_count=1).rows:
            found.put(rows)
            assert store.acknowledge(owner) == len(rows)
    found.put(None)


def add_and_claim(path: Path, number: int, start: Any, found: Any) -> None:
    start.wait()
    with open_store(path, create=True) as store:
        store.add([episode(n) for n in range(number * 10, number * 10 + 15)])
    found.put(None)


def run_many(target: Callable[..., None], path: Path, arguments: list[Any]) -> list[Any]:
    """Run a function in as many processes at once; return what they found."""
    context = multiprocessing.get_context("spawn")
    start, found = context.Event(), context.Queue()
    processes = [context.Process(target=target, args=(path, argument, start, found)) for argument in arguments]
    for process in processes:
        process.start()
    start.set()
    results: list[Any] = []
    for _ in processes:
        while (result := found.get(timeout=60)) is not None:
            results.append(result)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return results


def test_many_processes_make_add_to_and_empty_one_store_without_a_row_lost_or_twice(tmp_path: Path) -> None:
    path = tmp_path / "pool.db"
    run_many(add_and_claim, path, list(range(4)))
    with open_store(path) as store:
        assert len(store.rows()) == 45
        store.add([episode(number) for number in range(100, 300)])
    claimed = run_many(claim_all, path, [f"owner {number}" for number in range(4)])
    counted = Counter(row for rows in claimed for row in rows)
    with open_store(path) as store:
        assert counted == dict.fromkeys(store.rows(), 1)
        assert trained(store) == {1: 245}


def claim_and_die(path: Path) -> None:
    with open_store(path) as store:
        store.claim("dead", limit=4, lease_seconds=LEASE)
        os.kill(os.getpid(), signal.SIGKILL)


def test_nothing_is_lost_when_a_claimer_is_killed(store: Store, clock: Clock) -> None:
    process = multiprocessing.get_context("spawn").Process(target=claim_and_die, args=(Path(store.address),))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    (lease,) = store.counts().leases
    assert (lease.owner, lease.num_rows) == ("dead", 4)
    assert trained(store) == {0: 10}
    clock.now = lease.lease_until - 1
    assert len(store.free()) == 6
    clock.pass_(1)
    assert len(store.claim("heir").rows) == 10


def faulty(number: int) -> Episode:
    return replace(episode(number), error="the line went dead")


def test_a_task_is_played_by_one_at_a_time_and_its_episode_is_there_once(store: Store) -> None:
    tasks = ["e20", "e21", "e22", "e3"]
    assert store.claim_tasks("a", tasks[:2], lease_seconds=LEASE) == ("e20", "e21")
    assert store.claim_tasks("b", tasks, lease_seconds=LEASE) == ("e22",)  # e3 is there already
    assert store.open_tasks(tasks) == ("e20", "e21", "e22")
    assert dict(store.counts().num_tasks) == {"a": 2, "b": 1}
    assert not store.finish_task("b", episode(20))
    assert store.finish_task("a", episode(20), split="collected")
    assert not store.finish_task("a", episode(20, "played again"))
    assert store.open_tasks(tasks) == ("e21", "e22")
    ((_, found),) = store.read(store.rows("collected"))
    assert found == episode(20)
    assert store.find(["e20", "e21"]) == {"e20": 13}
    assert store.release_tasks("a") == 1
    assert store.claim_tasks("b", tasks, lease_seconds=LEASE) == ("e21", "e22")


def test_tasks_of_a_dead_collector_are_played_by_others_and_what_it_brings_late_is_not_taken(
    store: Store, clock: Clock
) -> None:
    store.claim_tasks("a", ["e20", "e21"], lease_seconds=LEASE)
    clock.pass_(LEASE - 1)
    assert store.renew_tasks("a", lease_seconds=LEASE) == 2
    clock.pass_(LEASE)
    assert store.claim_tasks("b", ["e20", "e21"], lease_seconds=LEASE) == ("e20", "e21")
    assert not store.finish_task("a", episode(20))
    assert store.finish_task("b", episode(20, "of b"))
    assert store.renew_tasks("a", lease_seconds=LEASE) == 0
    clock.pass_(LEASE)
    assert store.finish_task("a", episode(21))  # late, but before anybody else
    assert not store.finish_task("b", episode(21, "of b"))
    assert [one.trajectories for _, one in store.read(store.rows("train")[-2:])] == [
        episode(20, "of b").trajectories,
        episode(21).trajectories,
    ]


def test_what_a_fault_has_ended_is_kept_aside_and_may_be_played_again(store: Store, clock: Clock) -> None:
    store.claim_tasks("a", ["e20", "e21"], lease_seconds=LEASE)
    assert store.finish_task("a", faulty(20))
    assert store.open_tasks(["e20", "e21"]) == ("e21",)
    assert store.faults(["e20", "e21"]) == {"e20": faulty(20)}
    assert store.counts().num_faults == 1
    assert len(store.rows()) == 12
    assert store.claim_tasks("b", ["e20"], lease_seconds=LEASE) == ("e20",)
    assert store.open_tasks(["e20"]) == ("e20",)  # it is played again
    assert store.finish_task("b", episode(20))
    assert store.faults(["e20"]) == {}
    assert store.claim_tasks("a", ["e20"], lease_seconds=LEASE) == ()
