"""Random machines and manuals, from easy to hard."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from understudy.types import JSON

# fmt: off
MACHINES = (
    "pump", "fan", "boiler", "press", "lathe", "mixer", "oven", "drill", "saw", "crane", "loom", "kiln", "turbine",
    "cooler", "heater", "filter",
)
COLOURS = ("red", "green", "blue", "white", "yellow", "orange", "violet", "black")
# fmt: on

SMALLEST, LARGEST = 10, 99
"""Dials go from one to the other."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard a job is.

    Args:
        num_machines: machines in a round.
        num_colours: lines of the manual for each machine.
        num_rounds: how often lamps light up.
    """

    num_machines: int
    num_colours: int
    num_rounds: int


LEVELS = {1: Difficulty(1, 3, 1), 2: Difficulty(2, 4, 1), 3: Difficulty(3, 5, 2)}

Manual = dict[str, dict[str, int]]
"""The setting of each machine for each colour of its lamp."""

Lamps = dict[str, str]
"""The colour of each machine's lamp."""


def draw_task(rng: random.Random, difficulty: Difficulty) -> JSON:
    """Return a manual, and the lamps of each round."""
    machines = rng.sample(MACHINES, difficulty.num_machines)
    manual: Manual = {}
    for machine in machines:
        colours = rng.sample(COLOURS, difficulty.num_colours)
        settings = rng.sample(range(SMALLEST, LARGEST + 1), difficulty.num_colours)
        manual[machine] = dict(zip(colours, settings, strict=True))
    rounds = [
        {machine: rng.choice(list(manual[machine])) for machine in machines} for _ in range(difficulty.num_rounds)
    ]
    return {"manual": manual, "rounds": rounds}


def check_task(task: Mapping[str, Any]) -> tuple[Manual, list[Lamps]]:
    """Return manual and rounds of a task.

    Raises:
        KeyError, ValueError: the manual says nothing of a lamp, or there are no rounds.
    """
    manual, rounds = task["manual"], task["rounds"]
    if not rounds:
        raise ValueError("there are no rounds")
    for lamps in rounds:
        for machine, colour in lamps.items():
            int(manual[machine][colour])
    return manual, list(rounds)


def named_after(text: str, names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return, for each name in a text, what first matches between it and the next name; the last mention counts.

    So "pump 17, fan 40" and "Set the pump to 17. Then set the fan to 40." say the same.
    """
    found: dict[str, str] = {}
    pieces = re.split(rf"\b({'|'.join(map(re.escape, names))})\b", text, flags=re.IGNORECASE)
    for name, rest in zip(pieces[1::2], pieces[2::2], strict=True):
        matched = re.search(pattern, rest, re.IGNORECASE)
        if matched is not None:
            found[name.lower()] = matched[0].lower()
    return found
