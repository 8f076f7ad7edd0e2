"""Plots as inline SVG. Colours are classes of the page's style sheet, so they suit light and dark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from understudy.evaluate.statistics import Estimate

from .figures import percent

WIDTH = 860
SMALL_WIDTH, SMALL_HEIGHT = 380, 200
LEFT, BOTTOM, TOP = 44, 28, 12
NICE_SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Where an axis of shares may end."""

NUM_BINS = 16
MAX_BARS = 24
"""Up to so many different values have a bar each; beyond, they share bins."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn in one colour. `css` is ``before`` or ``after``; `values` are a histogram's or a curve's."""

    label: str
    css: str
    values: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an interval plot: a rate with its interval."""

    label: str
    css: str
    estimate: Estimate


def interval_plot(rows: Sequence[Row]) -> Markup:
    """Draw rates between 0 and 1 with their intervals, one below the other."""
    right, height = 150, 52
    span = WIDTH - right - 20
    bottom = height * len(rows) + 8

    def x(value: float) -> float:
        return 10 + span * value

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(x(tick), 0, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 18, f"{tick:.0%}", "tick", anchor="middle"))
    for number, row in enumerate(rows):
        y, found = height * number + 36, row.estimate
        parts.append(_text(0, y - 17, _shortened(row.label, 80), "label"))
        parts.append(_line(x(found.low), y, x(found.high), y, f"whisker {row.css}"))
        parts.append(_tag("circle", f'cx="{x(found.value):.1f}" cy="{y}" r="7" class="dot {row.css}"'))
        shown = f"{percent(found.value)}  [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        parts.append(_text(WIDTH, y + 5, shown, "value", anchor="end"))
    return _svg(parts, bottom + 24, "Rates with their intervals")


def curves(series: Sequence[Series], ticks: Sequence[str]) -> Markup:
    """Draw shares (0 to 1) over a few named positions, one line for each series."""
    step = (SMALL_WIDTH - LEFT - 48) / max(1, len(ticks) - 1)

    def at(position: int, value: float) -> tuple[float, float]:
        return LEFT + 24 + position * step, _height_of(value)

    parts = _share_axis(1.0, num_ticks=5)
    parts += [_text(at(n, 0)[0], SMALL_HEIGHT - 6, tick, "tick", anchor="middle") for n, tick in enumerate(ticks)]
    for one in series:
        points = [at(n, value) for n, value in enumerate(one.values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(_tag("polyline", f'points="{path}" class="curve {escape(one.css)}"'))
        for (x, y), value in zip(points, one.values, strict=True):
            dot = f'cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="dot {escape(one.css)}"'
            parts.append(_tag("circle", dot, _title(f"{one.label}: {percent(value)}")))
    return _svg(parts, SMALL_HEIGHT, "Shares", width=SMALL_WIDTH)


def histogram(series: Sequence[Series]) -> Markup:
    """Draw how often each value comes up, as a share of each series' own values."""
    edges, labels = _bins([value for one in series for value in one.values])
    shares = [[count / max(1, len(one.values)) for count in _counted(one.values, edges)] for one in series]
    highest = max(share for row in shares for share in row)
    top = next(end for end in NICE_SHARES if end >= highest)
    slot = (SMALL_WIDTH - LEFT - 4) / len(labels)
    bar = min(slot * 0.8 / len(series), 36)
    parts = _share_axis(top, num_ticks=3)
    for number, (one, found) in enumerate(zip(series, shares, strict=True)):
        for place, share in enumerate(found):
            x, y = LEFT + slot * (place + 0.5) + bar * (number - len(series) / 2), _height_of(share / top)
            title = _title(f"{one.label}: {labels[place]}: {percent(share)} of episodes")
            box = f'x="{x:.1f}" y="{y:.1f}" width="{bar - 1:.1f}" height="{_height_of(0) - y:.1f}" rx="1.5"'
            parts.append(_tag("rect", f'{box} class="bar {escape(one.css)}"', title) if share else Markup())
    every = -(-len(labels) // 8)
    for place in range(0, len(labels), every):
        x = LEFT + slot * (place + 0.5)
        parts.append(_text(x, SMALL_HEIGHT - 8, labels[place], "tick", anchor="middle"))
    return _svg(parts, SMALL_HEIGHT, "How often each value comes up", width=SMALL_WIDTH)


def _height_of(share: float) -> float:
    """Return the y of a share of the whole axis in a small plot."""
    return TOP + (1 - share) * (SMALL_HEIGHT - TOP - BOTTOM)


def _share_axis(top: float, *, num_ticks: int) -> list[Markup]:
    """Return the grid lines of a small plot, from 0 to a share of `top`."""
    parts = []
    for tick in range(num_ticks):
        part = tick / (num_ticks - 1)
        parts.append(_line(LEFT, _height_of(part), SMALL_WIDTH, _height_of(part), "grid"))
        parts.append(_text(LEFT - 8, _height_of(part) + 4, f"{100 * part * top:g}%", "tick", anchor="end"))
    return parts


def _bins(values: Sequence[float]) -> tuple[list[float], list[str]]:
    """Return the lower edges of bins, and what each is called: one for each value where there are few."""
    different = sorted(set(values))
    low, high = different[0], different[-1]
    if all(value == int(value) for value in different):
        size = 1 if high - low < MAX_BARS else math.ceil((high - low + 1) / NUM_BINS)
        edges = [float(edge) for edge in range(int(low), int(high) + 1, size)]
        return edges, [f"{edge:g}" if size == 1 else f"{edge:g}–{edge + size - 1:g}" for edge in edges]
    if len(different) <= MAX_BARS // 2:
        return different, [f"{value:.3g}" for value in different]
    edges = [low + (high - low) * place / NUM_BINS for place in range(NUM_BINS)]
    return edges, [f"{edge:.3g}" for edge in edges]


def _counted(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    def place(value: float) -> int:
        return max(number for number, edge in enumerate(edges) if edge <= value)

    counts = Counter(map(place, values))
    return [counts[number] for number in range(len(edges))]


def _svg(parts: Iterable[Markup], height: float, title: str, *, width: int = WIDTH) -> Markup:
    box = f'viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}"'
    return _tag("svg", box, Markup().join(parts))


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return _tag("line", f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{escape(css)}"')


def _text(x: float, y: float, text: str, css: str, *, anchor: str = "start") -> Markup:
    return _tag("text", f'x="{x:.1f}" y="{y:.1f}" class="{escape(css)}" text-anchor="{anchor}"', escape(text))


def _title(text: str) -> Markup:
    return _tag("title", "", escape(text))


def _tag(name: str, attributes: str, content: Markup | None = None) -> Markup:
    return Markup(f"<{name} {attributes}>{content or ''}</{name}>")


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]
