"""The gym itself: a simulated user, and a catalogue that can be searched.

The user is a table and a rule, and no model: the same questions get the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.environments.interact import FiveTuple

from .needs import NEEDS, Aspect, Need

MAX_FOUND = 5

NO_WISH = "I do not mind."
NOT_UNDERSTOOD = "I do not know what you mean. Ask me about one thing that I could want."
NOTHING_FOUND = "nothing fits"

_ACTION = re.compile(r"\s*\[(action|answer|search)\]\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry of the catalogue. `features` holds a value for each aspect."""

    id: str
    features: dict[str, str]

    def text(self) -> str:
        """Return the entry as a search shows it."""
        return f"{self.id}: {', '.join(self.features.values())}"


@dataclass(slots=True)
class Conversation:
    """A user, what the user wants, and what has been said.

    `wishes` holds the wanted value of each aspect that the user cares about. `heard` holds what the user has said to
    each aspect that was asked about, and `found` the ids that a search has shown.
    """

    need: Need
    wishes: dict[str, str]
    offers: tuple[Offer, ...]
    hints: bool
    heard: dict[str, list[str]] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)

    def fits(self, offer: Offer) -> bool:
        """Say whether an offer is all that the user wants."""
        return all(offer.features[aspect] == value for aspect, value in self.wishes.items())


class UserGym:
    """A user who wants something of a catalogue and does not say what.

    ``[action] question`` asks the user, who answers to one aspect at a time; ``[search] words`` lists what has all the
    features among the words; ``[answer] id`` proposes an offer and ends the episode. The reward is 1 when it is all
    that the user wants, and 0 for all else.

    Args:
        max_rounds: the user leaves after so many steps.
    """

    def __init__(self, *, max_rounds: int = 12) -> None:
        self.max_rounds = max_rounds
        self.num_rounds = 0
        self.conversation: Conversation | None = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Let the user of ``options["task"]`` begin.

        Raises:
            KeyError: the task lacks something, or names an unknown need.
        """
        task = (options or {})["task"]
        need = NEEDS[task["need"]]
        offers = tuple(Offer(**offer) for offer in task["offers"])
        self.conversation = Conversation(need, dict(task["wishes"]), offers, task["hints"])
        self.num_rounds = 0
        return f"{need.request}\nOffers differ in: {', '.join(offers[0].features)}.", {"success": False}

    def step(self, action: str) -> FiveTuple:
        """Take an action ``"[choice] content"``."""
        self.num_rounds += 1
        matched = _ACTION.fullmatch(action)
        success, stop_reason = False, None
        if matched is None:
            feedback = "Write [action], [answer] or [search], and what goes with it."
        elif matched[1] == "answer":
            success, feedback = self._propose(matched[2])
            stop_reason = "answered"
        else:
            feedback = (self._ask if matched[1] == "action" else self._search)(matched[2])
        truncated = stop_reason is None and self.num_rounds >= self.max_rounds
        info = {"success": success, "stop_reason": "max_rounds" if truncated else stop_reason}
        return feedback, float(success), stop_reason is not None, truncated, info

    def _ask(self, question: str) -> str:
        """Answer a question: to the first aspect in it that has been asked about least often.

        The first answer is a hint where the user speaks in hints; the second names the value.
        """
        conversation = self._under_way
        asked = asked_about(question, conversation.need.aspects)
        if not asked:
            return NOT_UNDERSTOOD
        aspect = min(asked, key=lambda aspect: len(conversation.heard.get(aspect.name, ())))
        said = conversation.heard.setdefault(aspect.name, [])
        wish = conversation.wishes.get(aspect.name)
        if wish is None:
            said.append(NO_WISH)
        else:
            said.append(aspect.hints[wish] if conversation.hints and not said else f"{wish.capitalize()}, please.")
        return said[-1]

    def _search(self, query: str) -> str:
        """List what has all those of the words that anything in the catalogue has."""
        conversation = self._under_way
        known = {value for offer in conversation.offers for value in offer.features.values()}
        wanted = known & set(re.findall(r"\w+", query.lower()))
        found = [offer for offer in conversation.offers if wanted and wanted <= set(offer.features.values())]
        conversation.found.update(offer.id for offer in found[:MAX_FOUND])
        return "\n".join(offer.text() for offer in found[:MAX_FOUND]) or NOTHING_FOUND

    def _propose(self, answer: str) -> tuple[bool, str]:
        conversation = self._under_way
        words = re.findall(r"\w+", answer)
        proposed = [offer for offer in conversation.offers if offer.id in words]
        if len(proposed) != 1:
            return False, "I need the id of one offer. I shall look elsewhere."
        if conversation.fits(proposed[0]):
            return True, "That is just what I want."
        return False, "That is not what I want. I shall look elsewhere."

    @property
    def _under_way(self) -> Conversation:
        assert self.conversation is not None, "reset comes first"
        return self.conversation


def asked_about(question: str, aspects: Sequence[Aspect]) -> list[Aspect]:
    """Return the aspects that a question names, in the order in which it names them."""
    words = re.findall(r"\w+", question.lower())
    places = {
        index: min((words.index(word) for word in aspect.words if word in words), default=None)
        for index, aspect in enumerate(aspects)
    }
    named = [(place, index) for index, place in places.items() if place is not None]
    return [aspects[index] for _, index in sorted(named)]
