"""Trying again: how long to wait, how often, and how not to overrun a server.

A wait is drawn evenly from zero to a bound that doubles with every retry ("full jitter"; Brooker, "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015), so that many episodes that failed together do not come back together. When
the server says how long to wait, that is the least, and it holds for all requests, not only for the one that asked.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from understudy.errors import ConfigError, PolicyError

Result = TypeVar("Result")


class Retryable(Exception):
    """An attempt failed in a way that another may not.

    Args:
        reason: what went wrong.
        after_seconds: how long the server asked to be left alone; None where it did not say.
    """

    def __init__(self, reason: str, *, after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class Patience:
    """Insists on a result.

    Args:
        max_retries: how often an attempt is repeated.
        min_wait_seconds: bound of the first wait.
        max_wait_seconds: most that a wait is bounded by, also when the server asks for more.
        requests_per_minute: most attempts in a minute, evenly spaced; None for no limit.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        *,
        max_retries: int,
        min_wait_seconds: float,
        max_wait_seconds: float,
        requests_per_minute: float | None = None,
    ) -> None:
        if max_retries < 0 or not 0 <= min_wait_seconds <= max_wait_seconds:
            raise ConfigError(
                f"max_retries {max_retries} is 0 or more, and min_wait_seconds {min_wait_seconds} goes from 0 to "
                f"max_wait_seconds {max_wait_seconds}"
            )
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise ConfigError(f"requests_per_minute is {requests_per_minute}; it is above 0, or null")
        self._max_retries = max_retries
        self._min_wait_seconds = min_wait_seconds
        self._max_wait_seconds = max_wait_seconds
        self._seconds_between = 60.0 / requests_per_minute if requests_per_minute is not None else 0.0
        self._next_slot = 0.0
        self._blocked_until = 0.0
        self._rng = random.Random()

    async def insist(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the first attempt that succeeds.

        Raises:
            PolicyError: none did.
        """
        for number in range(self._max_retries + 1):
            await self._wait_for_turn()
            try:
                return await attempt()
            except Retryable as failure:
                if number == self._max_retries:
                    raise PolicyError(f"{failure} ({number + 1} attempts)") from failure
                await asyncio.sleep(self._wait_seconds(number, failure))
        raise AssertionError("the last attempt returns or raises")

    def _wait_seconds(self, number: int, failure: Retryable) -> float:
        bound = min(self._max_wait_seconds, self._min_wait_seconds * 2.0**number)
        asked = min(failure.after_seconds or 0.0, self._max_wait_seconds)
        if asked:
            self._blocked_until = max(self._blocked_until, time.monotonic() + asked)
        return asked + self._rng.uniform(0.0, bound)

    async def _wait_for_turn(self) -> None:
        """Wait until the server may be asked again, and for a slot of one's own where the rate is limited."""
        now = time.monotonic()
        start = max(now, self._blocked_until)
        if self._seconds_between:
            start = max(start, self._next_slot)
            self._next_slot = start + self._seconds_between
        if start > now:
            await asyncio.sleep(start - now)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date (RFC 9110).

    None where it does not say, or says it in a way that cannot be read.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            continue
    return None
