"""Waiting and trying again."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from understudy.errors import ConfigError, PolicyError
from understudy.policies.patience import Patience, Retryable, retry_after_seconds


def insist(patience: Patience, *failures: Retryable) -> tuple[str, float]:
    left = list(failures)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    started = time.monotonic()
    return asyncio.run(patience.insist(attempt)), time.monotonic() - started


def test_it_tries_again_until_it_works() -> None:
    patience = Patience(max_retries=3, min_wait_seconds=0, max_wait_seconds=0)
    assert insist(patience, Retryable("a"), Retryable("b"), Retryable("c"))[0] == "done"


def test_it_gives_up_with_the_last_reason() -> None:
    patience = Patience(max_retries=1, min_wait_seconds=0, max_wait_seconds=0)
    with pytest.raises(PolicyError, match=r"b \(2 attempts\)"):
        insist(patience, Retryable("a"), Retryable("b"), Retryable("c"))


def test_it_waits_at_least_as_long_as_the_server_asks_but_not_forever() -> None:
    patience = Patience(max_retries=1, min_wait_seconds=0, max_wait_seconds=0.1)
    assert 0.05 <= insist(patience, Retryable("busy", after_seconds=0.05))[1] < 1
    assert 0.1 <= insist(patience, Retryable("busy", after_seconds=3600))[1] < 2


def test_all_requests_wait_when_one_was_told_to() -> None:
    patience = Patience(max_retries=1, min_wait_seconds=0, max_wait_seconds=1)
    came: list[float] = []

    async def attempt(fails: list[Retryable]) -> None:
        if fails:
            raise fails.pop()
        came.append(time.monotonic() - started)

    async def both() -> None:
        first = asyncio.create_task(patience.insist(lambda: attempt([Retryable("busy", after_seconds=0.2)])))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(patience.insist(lambda: attempt([])))
        await asyncio.wait([second])
        first.cancel()

    started = time.monotonic()
    asyncio.run(both())
    assert came[0] >= 0.19


def test_waits_grow_and_are_spread_over_their_whole_range() -> None:
    patience = Patience(max_retries=9, min_wait_seconds=1, max_wait_seconds=6)
    for number, bound in ((0, 1), (1, 2), (2, 4), (3, 6), (8, 6)):
        waits = [patience._wait_seconds(number, Retryable("x")) for _ in range(400)]
        assert 0 <= min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound


def test_how_long_to_wait_is_read_in_every_spelling() -> None:
    assert retry_after_seconds({"retry-after": "3"}) == 3
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "3"}) == 0.25
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after_seconds({"retry-after": later}) or 0) <= 60
    assert retry_after_seconds({"retry-after": "-5"}) == 0
    assert retry_after_seconds({"retry-after": "soon"}) is None
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize(
    "bad",
    [{"max_retries": -1}, {"min_wait_seconds": 2, "max_wait_seconds": 1}, {"requests_per_minute": 0}],
)
def test_impossible_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError):
        Patience(**{"max_retries": 1, "min_wait_seconds": 0, "max_wait_seconds": 1} | bad)
