"""Progress: count, rate, time left; plain lines where there is no terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from understudy.runs import Progress, format_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def test_a_line_every_interval_with_rate_and_time_left(clock) -> None:
    console = plain_console()
    with Progress("reading", unit="episodes", total=5000, plain_seconds=10, console=console) as progress:
        for _ in range(3200):
            clock[0] += 1 / 128
            progress.advance(shown={"loss": "1.25"})
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "reading: 1,280 of 5,000 episodes · 128/s · 0:29 left · loss 1.25",
        "reading: 2,560 of 5,000 episodes · 128/s · 0:19 left · loss 1.25",
    ]


def test_time_left_comes_from_the_fraction_where_the_total_is_unknown(clock) -> None:
    with Progress("reading", unit="rows", console=plain_console()) as progress:
        clock[0] += 60
        progress.advance(120, fraction=0.25)
        assert progress.status() == "120 rows · 2.00/s · 3:00 left"


def test_a_resumed_run_is_not_given_the_speed_of_what_was_done_before(clock) -> None:
    with Progress("training", unit="steps", total=1000, done=900, console=plain_console()) as progress:
        clock[0] += 10
        progress.advance(10)
        assert progress.status() == "910 of 1,000 steps · 1.00/s · 1:30 left"


def test_the_rate_is_that_of_the_last_half_minute(clock) -> None:
    with Progress("x", unit="rows", total=10_000, plain_seconds=1, console=plain_console()) as progress:
        for _ in range(100):
            clock[0] += 1
            progress.advance(1)
        for _ in range(60):
            clock[0] += 1
            progress.advance(100)
        assert "100/s" in progress.status()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress("reading", unit="rows", total=10, console=console) as progress:
        progress.advance(4, shown={"share": "[bold]"})
        assert "4 of 10 rows" in console.file.getvalue()
        assert "share [bold]" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
