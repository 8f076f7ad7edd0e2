"""Random motions and briefs, from easy to hard."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

from understudy.types import JSON

from .rules import CONTRA, PRO, SIDES, Item

# fmt: off
TOWNS = (
    "Alderham", "Birchford", "Coldwick", "Deerfield", "Elmbridge", "Foxhill", "Glenmouth", "Hartgate", "Ironbrook",
    "Lakeburg", "Marshdale", "Northaven", "Oakwick", "Ravenhill", "Saltford", "Swanbridge",
)
PLANS = (
    "build a tram", "close the market street to cars", "open a night school", "plant a forest", "sell the old harbour",
    "host the summer games", "ban fireworks", "buy the water works", "build a tower", "lower the bus fares",
    "move the town hall", "open the museum at night", "keep goats in the park", "switch off the street lamps at night",
)
POINTS = (
    "jobs", "safety", "health", "cost", "noise", "speed", "comfort", "fairness", "pride", "history", "beauty",
    "privacy", "waste", "traffic", "tourism", "learning", "sleep", "wildlife", "energy", "taxes", "rents", "trade",
    "crime", "leisure", "families", "students", "farmers", "shops", "weather", "tradition", "freedom", "order",
)
EVIDENCE = (
    "audit", "survey", "census", "ledger", "trial", "photograph", "letter", "map", "contract", "petition", "diary",
    "forecast", "interview", "inventory", "invoice", "patent", "poll", "receipt", "sample", "sketch", "statistic",
    "treaty", "verdict", "video", "witness", "almanac", "blueprint", "chart", "database", "experiment", "formula",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard a debate is.

    Args:
        num_points: points in a brief.
        num_answers: answers in a brief; no more than the other side has points.
        worths: what the points are worth, drawn from these without putting back.
        answer_worths: the same for answers.
        num_counted: items that count in one speech.
        num_speeches: speeches of each side.
    """

    num_points: int
    num_answers: int
    worths: tuple[int, ...]
    answer_worths: tuple[int, ...]
    num_counted: int
    num_speeches: int


LEVELS = {
    1: Difficulty(3, 2, (1, 1, 3), (2, 2), num_counted=1, num_speeches=2),
    2: Difficulty(5, 3, tuple(range(1, 10)), tuple(range(1, 10)), num_counted=2, num_speeches=2),
    3: Difficulty(8, 5, tuple(range(1, 16)), tuple(range(1, 16)), num_counted=3, num_speeches=3),
}


def draw_task(rng: random.Random, difficulty: Difficulty) -> JSON:
    """Return a motion and a brief for each side. No word stands in both briefs for something to say."""
    words = rng.sample(POINTS, 2 * difficulty.num_points)
    evidence = rng.sample(EVIDENCE, 2 * difficulty.num_answers)
    points = {PRO: words[: difficulty.num_points], CONTRA: words[difficulty.num_points :]}
    briefs: dict[str, list[JSON]] = {}
    for side, other in (SIDES, SIDES[::-1]):
        worths = rng.sample(difficulty.worths, difficulty.num_points)
        answered = rng.sample(points[other], difficulty.num_answers)
        answer_worths = rng.sample(difficulty.answer_worths, difficulty.num_answers)
        items = [Item(word, worth) for word, worth in zip(points[side], worths, strict=True)]
        items += [Item(evidence.pop(), worth, word) for word, worth in zip(answered, answer_worths, strict=True)]
        briefs[side] = [asdict(item) for item in items]
    return {"motion": f"{rng.choice(TOWNS)} should {rng.choice(PLANS)}.", "briefs": briefs}
