"""The environment around the gym: tasks, levels, and an expert that asks, searches and proposes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from understudy.environments.base import Observation
from understudy.environments.interact import InteractEnvironment
from understudy.environments.tool_environment import calls
from understudy.errors import ConfigError
from understudy.types import JSON, Message

from .gym import Conversation, Offer, UserGym
from .needs import NEEDS, Need

INSTRUCTIONS = (
    "Find out what the user wants and propose the one offer that fits. Act through the tool interact_with_env. action: "
    "ask the user about one thing. search: look offers up by their features. answer: propose an offer by its id."
)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard users are.

    Args:
        num_aspects: what offers differ in.
        num_wishes: fewest and most of these that the user cares about.
        num_offers: size of the catalogue.
        hints: the user's first answer to a question names no value.
    """

    num_aspects: int
    num_wishes: tuple[int, int]
    num_offers: int
    hints: bool


LEVELS = {
    1: Difficulty(1, (1, 1), 3, hints=False),
    2: Difficulty(2, (1, 2), 8, hints=False),
    3: Difficulty(3, (2, 3), 16, hints=True),
    4: Difficulty(4, (3, 4), 40, hints=True),
}


class UserGymEnvironment(InteractEnvironment):
    """A simulated user with hidden wishes, to be asked, and a catalogue, to be searched.

    Args:
        level: 1 (one wish, said when asked for) to 4 (up to four wishes among 40 offers, hinted at).
        max_rounds: the user leaves after so many steps.
        num_tasks, task_seed: see `ToolEnvironment`.

    Raises:
        ConfigError: the level is unknown, or there are no rounds.
    """

    instructions = INSTRUCTIONS

    def __init__(
        self,
        *,
        level: int = 2,
        max_rounds: int = 12,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        if max_rounds < 1:
            raise ConfigError(f"max_rounds is {max_rounds}; it is 1 at least")
        self.difficulty = LEVELS[level]
        self._max_rounds = max_rounds
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_rounds)

    def make_gym(self) -> UserGym:
        """Return a new gym."""
        return UserGym(max_rounds=self._max_rounds)

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a user's wishes and a catalogue in which one offer fits them."""
        difficulty = self.difficulty
        while True:
            need = rng.choice(list(NEEDS.values()))
            names = [aspect.name for aspect in need.aspects]
            names = sorted(rng.sample(names, difficulty.num_aspects), key=names.index)
            offers = _draw_offers(rng, need, names, difficulty.num_offers)
            wanted = rng.choice(offers)
            cares = rng.sample(names, rng.randint(*difficulty.num_wishes))
            wishes = {name: wanted.features[name] for name in names if name in cares}
            conversation = Conversation(need, wishes, tuple(offers), difficulty.hints)
            if sum(map(conversation.fits, offers)) == 1:
                return {
                    "need": need.name,
                    "wishes": wishes,
                    "hints": difficulty.hints,
                    "offers": [asdict(offer) for offer in offers],
                }

    def decide(self, observation: Observation) -> Message:
        """Ask about every aspect, search for what was said, and propose what was found."""
        gym = self.state.gym
        assert isinstance(gym, UserGym)
        conversation = gym.conversation
        assert conversation is not None
        for name in conversation.offers[0].features:
            if name not in conversation.heard:
                return calls("interact_with_env", choice="action", content=f"Which {name}?")
        known = _understood(conversation)
        fitting = [o.id for o in conversation.offers if known.items() <= o.features.items()]
        if not set(fitting) <= conversation.found:
            return calls("interact_with_env", choice="search", content=" ".join(known.values()))
        return calls("interact_with_env", choice="answer", content=fitting[0])


def _understood(conversation: Conversation) -> dict[str, str]:
    """Return the wishes that the user's answers tell, whether they name a value or hint at it."""
    known: dict[str, str] = {}
    for name, said in conversation.heard.items():
        for value, hint in conversation.need.aspect(name).hints.items():
            if said[-1] in (hint, f"{value.capitalize()}, please."):
                known[name] = value
    return known


def _draw_offers(rng: random.Random, need: Need, names: list[str], count: int) -> list[Offer]:
    """Return offers with ids of their own; with one aspect, each has another value of it."""
    ids = rng.sample(range(10, 100), count)
    values = {name: list(need.aspect(name).hints) for name in names}
    if len(names) == 1:
        drawn = [{names[0]: value} for value in rng.sample(values[names[0]], min(count, len(values[names[0]])))]
    else:
        drawn = [{name: rng.choice(values[name]) for name in names} for _ in range(count)]
    return [Offer(str(id), features) for id, features in zip(ids, drawn, strict=False)]
