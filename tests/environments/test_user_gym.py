"""The user gym: a user who answers by a table, and a catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.environments.tasks import split_tasks
from understudy.environments.user_gym import UserGym, UserGymEnvironment
from understudy.environments.user_gym.gym import asked_about
from understudy.environments.user_gym.needs import NEEDS
from understudy.errors import ConfigError

TASK = {
    "need": "hotel",
    "wishes": {"place": "harbour", "price": "low"},
    "hints": True,
    "offers": [
        {"id": "17", "features": {"place": "harbour", "price": "low", "extra": "pool"}},
        {"id": "40", "features": {"place": "harbour", "price": "high", "extra": "pool"}},
        {"id": "52", "features": {"place": "forest", "price": "low", "extra": "sauna"}},
    ],
}


def gym(max_rounds: int = 12, **changes: Any) -> UserGym:
    made = UserGym(max_rounds=max_rounds)
    made.reset(options={"task": TASK | changes})
    return made


def test_steps_are_gymnasiums_five_tuples() -> None:
    opening, info = UserGym().reset(options={"task": TASK})
    assert (opening, info) == (
        "I need a hotel for the weekend.\nOffers differ in: place, price, extra.",
        {"success": False},
    )
    assert gym().step("[search] pool high") == (
        "40: harbour, high, pool", 0.0, False, False, {"success": False, "stop_reason": None},
    )  # fmt: skip
    _, reward, terminated, truncated, info = gym().step("[answer] 17")
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True, "stop_reason": "answered"})
    assert gym().step("[answer] 40")[1:] == (0.0, True, False, {"success": False, "stop_reason": "answered"})
    assert gym(1).step("[search] pool")[2:4] == (False, True)


def test_the_user_hints_first_and_names_what_is_meant_when_asked_again() -> None:
    user = gym()
    asked = [user.step(f"[action] {question}")[0] for question in ("Where?", "Which place?", "And the price?", "price")]
    assert asked == [
        "I want to wake up and see ships.", "Harbour, please.", "I am a student and count every coin.", "Low, please.",
    ]  # fmt: skip
    assert gym(hints=False).step("[action] Where?")[0] == "Harbour, please."
    assert gym().step("[action] Which extra?")[0] == "I do not mind."


def test_one_question_gets_one_answer_and_the_next_the_next() -> None:
    user = gym(hints=False)
    assert [user.step("[action] Which price, and where?")[0] for _ in range(3)] == [
        "Low, please.", "Harbour, please.", "Low, please.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "feedback"),
    [
        ("[action] How are you?", "I do not know what you mean. Ask me about one thing that I could want."),
        ("[search] castle", "nothing fits"),
        ("[search] forest high", "nothing fits"),
        ("[search] Harbour!", "17: harbour, low, pool\n40: harbour, high, pool"),
        ("[answer] I propose offer 17.", "That is just what I want."),
        ("[answer] 17 or 40", "I need the id of one offer. I shall look elsewhere."),
        ("[answer] 99", "I need the id of one offer. I shall look elsewhere."),
        ("[guess] 17", "Write [action], [answer] or [search], and what goes with it."),
    ],
)
def test_every_action_gets_its_answer(action: str, feedback: str) -> None:
    assert gym().step(action)[0] == feedback


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_one_offer_fits_each_user(level: int) -> None:
    for task in UserGymEnvironment(level=level).tasks("validation")[:20]:
        fitting = [o for o in task["offers"] if task["wishes"].items() <= o["features"].items()]
        assert len(fitting) == 1
        assert len({offer["id"] for offer in task["offers"]}) == len(task["offers"])
        assert split_tasks([task], "validation") == [task]


def test_what_asks_about_an_aspect_is_told_from_what_answers() -> None:
    for need in NEEDS.values():
        hints = [hint for aspect in need.aspects for hint in aspect.hints.values()]
        assert len(set(hints)) == len(hints)
        for aspect in need.aspects:
            assert [found.name for found in asked_about(f"Which {aspect.name}?", need.aspects)] == [aspect.name]
            for value, hint in aspect.hints.items():
                assert value not in hint.lower().replace(".", "").split()


def test_bad_settings_are_refused() -> None:
    for arguments in ({"level": 5}, {"max_rounds": 0}):
        with pytest.raises(ConfigError):
            UserGymEnvironment(**arguments)
