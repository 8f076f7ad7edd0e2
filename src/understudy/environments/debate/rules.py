"""What a side may say, what the rule judge counts of it, and the most that could have been counted.

A brief has *points*, and *answers* to points of the other side. In every speech the first few new items of the
speaker's brief count. A point earns its worth; an answer earns its own if the other side has named the point before.

*The judge's optimum.* Choosing items is scheduling jobs of equal length that come up at different times and stay: to
take the most valuable ones that are there, in every speech, is best, because whoever takes a lesser one now could swap
it with the better one that is taken later. What the other side says decides what comes up, so the optimum is that
against what it did say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PRO, CONTRA = "pro", "contra"
SIDES = (PRO, CONTRA)


@dataclass(frozen=True, slots=True)
class Item:
    """Something to say: the word that stands for it, what it earns, and for an answer the point that it answers."""

    word: str
    worth: int
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """Words of a side that counted, and the turn in which they were said. Sides that speak at once share a turn."""

    side: str
    turn: int
    items: tuple[Item, ...]


Brief = tuple[Item, ...]


def read_brief(task: Mapping[str, Any], side: str) -> Brief:
    """Read a side's brief from a task."""
    return tuple(Item(**item) for item in task["briefs"][side])


def counted(text: str, brief: Brief, speeches: Sequence[Speech], side: str, turn: int, limit: int) -> tuple[Item, ...]:
    """Return what counts of a speech: the first new items of the brief that it names, as whole words in any case."""
    fresh = _fresh(brief, speeches, side)
    places = {item: match.start() for item in fresh if (match := _find(item.word, text)) is not None}
    named = sorted(places, key=lambda item: places[item])[:limit]
    heard = _heard(speeches, side, turn)
    return tuple(item for item in named if item.against is None or item.against in heard)


def best_items(brief: Brief, speeches: Sequence[Speech], side: str, turn: int, limit: int) -> list[Item]:
    """Return the most valuable items that would count now, most valuable first; equal ones in the brief's order."""
    heard = _heard(speeches, side, turn)
    open_items = [item for item in _fresh(brief, speeches, side) if item.against is None or item.against in heard]
    return sorted(open_items, key=lambda item: -item.worth)[:limit]


def points(speeches: Sequence[Speech], side: str) -> int:
    """Return what a side has earned."""
    return sum(item.worth for speech in speeches if speech.side == side for item in speech.items)


def optimum(brief: Brief, speeches: Sequence[Speech], side: str, limit: int) -> int:
    """Return the most that a side could have earned with as many speeches, against what the other side said."""
    played: list[Speech] = []
    for speech in speeches:
        if speech.side == side:
            best = best_items(brief, [*played, *_others(speeches, side)], side, speech.turn, limit)
            played.append(Speech(side, speech.turn, tuple(best)))
    return points(played, side)


def _others(speeches: Sequence[Speech], side: str) -> list[Speech]:
    return [speech for speech in speeches if speech.side != side]


def _heard(speeches: Sequence[Speech], side: str, turn: int) -> set[str]:
    """Return what the other side said in earlier turns."""
    return {item.word for speech in _others(speeches, side) if speech.turn < turn for item in speech.items}


def _fresh(brief: Brief, speeches: Sequence[Speech], side: str) -> list[Item]:
    used = {item for speech in speeches if speech.side == side for item in speech.items}
    return [item for item in brief if item not in used]


def _find(word: str, text: str) -> re.Match[str] | None:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)
