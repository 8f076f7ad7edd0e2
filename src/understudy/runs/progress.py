"""How far a long command has come: a bar on a terminal, a plain line now and then elsewhere. Both go to stderr."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

REDRAW_SECONDS = 0.1
WINDOW_SECONDS = 30.0


class Progress:
    """Counts work done, and shows count, rate and time left.

    Args:
        label: what is being done, such as ``reading``.
        unit: what is counted, in the plural, such as ``episodes``.
        total: how many there are; None where that is not known.
        done: how many were done before, by a run that this one goes on with.
        plain_seconds: time between two lines where stderr is no terminal.
        console: where to show it; a console on stderr by default.
    """

    def __init__(
        self,
        label: str,
        *,
        unit: str,
        total: int | None = None,
        done: int = 0,
        plain_seconds: float = 10.0,
        console: Console | None = None,
    ) -> None:
        from rich.console import Console

        self.label, self.unit, self.total, self.done = label, unit, total, done
        self._plain_seconds = plain_seconds
        self._console = console or Console(stderr=True)
        self._bar: RichProgress | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._next_show = 0.0
        self._shown: dict[str, str] = {}
        self._fraction: float | None = None

    def __enter__(self) -> Progress:
        self._samples.append((time.monotonic(), self.done))
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[status]}", markup=False),
                console=self._console,
                transient=True,
                auto_refresh=False,
            )
            self._bar.add_task(self.label, total=1.0, status="")
            self._bar.start()
        else:
            self._next_show = time.monotonic() + self._plain_seconds
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num: int = 1, *, fraction: float | None = None, shown: Mapping[str, str] | None = None) -> None:
        """Count `num` more.

        Args:
            fraction: how much of everything is done, from 0 to 1, for work whose total is not known (such as bytes
                read of a compressed file).
            shown: other values to show, by name, such as ``{"loss": "1.234"}``; they stay until they are given anew.
        """
        self.done += num
        if fraction is not None:
            self._fraction = fraction
        if shown:
            self._shown.update(shown)
        now = time.monotonic()
        if now >= self._next_show:
            self._show(now)

    def status(self, now: float | None = None) -> str:
        """Return the line that is shown: ``1,200 of 5,000 episodes · 310/s · 0:12 left``."""
        now = time.monotonic() if now is None else now
        rate = self._rate(now)
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        parts = [f"{count} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2f}/s")
        left = self._seconds_left(rate)
        if left is not None:
            parts.append(f"{format_seconds(left)} left")
        parts.extend(f"{name} {value}" for name, value in self._shown.items())
        return " · ".join(parts)

    def _show(self, now: float) -> None:
        self._sample(now)
        if self._bar is None:
            self._next_show = now + self._plain_seconds
            self._console.print(f"{self.label}: {self.status(now)}", markup=False, highlight=False, soft_wrap=True)
            return
        self._next_show = now + REDRAW_SECONDS
        share = self._share()
        total = None if share is None else 1.0
        self._bar.update(self._bar.task_ids[0], total=total, completed=share or 0.0, status=self.status(now))
        self._bar.refresh()

    def _sample(self, now: float) -> None:
        self._samples.append((now, self.done))
        while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_SECONDS:
            self._samples.popleft()

    def _rate(self, now: float) -> float:
        """Return the units per second over the last half minute."""
        then, done = self._samples[0] if self._samples else (now, self.done)
        return (self.done - done) / (now - then) if now > then else 0.0

    def _share(self) -> float | None:
        if self.total:
            return min(1.0, self.done / self.total)
        return self._fraction

    def _seconds_left(self, rate: float) -> float | None:
        if self.total is not None:
            left: float = self.total - self.done
        elif self._fraction:
            left = self.done / self._fraction * (1 - self._fraction)
        else:
            return None
        return left / rate if rate > 0 and left >= 0 else None


def format_seconds(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
