"""A trained world model answers as the environment does, one message for each call, and says how sure it is."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests.training import make_base
from tests.world_models.corridor import MOVES, Corridor
from understudy.environments import system, user
from understudy.errors import ConfigError, PolicyError
from understudy.policies import ContextLengthExceeded
from understudy.types import Message, ToolCall
from understudy.world_models.world_model import WorldModel

START = (system("Walk to the door: left or right."), user("at 2 door 4 left 5"))


def says(text: str) -> Message:
    return Message("assistant", text)


async def answers(world_model: WorldModel) -> list[tuple[str, str]]:
    """Return what the world model and the corridor answer, for both moves from the beginning of every task."""
    corridor, found = Corridor(), []
    for task in corridor.tasks("train"):
        for move in MOVES:
            first = (await corridor.reset(task)).observations["agent"].messages
            step = await corridor.step({"agent": says(move)})
            imagined = await world_model.observe((*first, says(move)), (), seed=0)
            found.append((imagined.messages[0].text(), step.observations["agent"].messages[0].text()))
    return found


def test_it_answers_as_the_environment_does(model: str) -> None:
    found = asyncio.run(answers(WorldModel.of(model)))
    assert sum(imagined == real for imagined, real in found) >= 0.95 * len(found)


def test_it_says_how_likely_its_answer_is_and_how_likely_another_would_be(model: str) -> None:
    async def ask() -> tuple[Any, list[float]]:
        world_model, messages = WorldModel.of(model), (*START, says("right"))
        imagined = await world_model.observe(messages, (), seed=0)
        texts = (imagined.messages[0].text(), "at 0 door 4 left 4")
        return imagined, [await world_model.log_likelihood(messages, (), user(text)) for text in texts]

    imagined, (own, other) = asyncio.run(ask())
    assert imagined.is_whole
    assert imagined.messages == (user("at 3 door 4 left 4"),)
    assert own == pytest.approx(imagined.logprob, abs=1e-3)
    assert own > -0.1 > -3 > other


def test_every_call_of_an_action_gets_a_result(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    calls = (ToolCall("move", {"to": 1}, "a"), ToolCall("look", {}, "b"))
    world_model = WorldModel.of({"model": str(base), "max_new_tokens": 3})
    imagined = asyncio.run(world_model.observe((*START, Message("assistant", None, tool_calls=calls)), (), seed=0))
    assert [(m.role, m.tool_call_id, m.name) for m in imagined.messages] == [
        ("tool", "a", "move"),
        ("tool", "b", "look"),
    ]
    assert not imagined.is_whole
    assert imagined.usage.completion_tokens == 6


def test_draws_depend_on_the_seed_alone(model: str) -> None:
    world_model = WorldModel.of({"model": model, "temperature": 5.0, "max_new_tokens": 8})

    async def ask(*seeds: int) -> list[str]:
        asked = (world_model.observe((*START, says("left")), (), seed) for seed in seeds)
        return [imagined.messages[0].text() for imagined in await asyncio.gather(*asked)]

    first = asyncio.run(ask(1, 2, 3))
    assert len(set(first)) == 3
    assert asyncio.run(ask(3, 1, 2)) == [first[2], first[0], first[1]]


def test_who_asks_for_the_same_settings_shares_one_and_it_goes_with_the_last_of_them(model: str) -> None:
    first, second = WorldModel.of(model), WorldModel.of({"model": model})
    assert first is second
    assert WorldModel.of({"model": model, "temperature": 1.0}) is not first
    gone = weakref.ref(first)
    del first, second
    gc.collect()
    assert gone() is None


def test_what_was_let_go_is_loaded_again(model: str) -> None:
    world_model = WorldModel.of(model)
    before = asyncio.run(world_model.observe((*START, says("left")), (), seed=0))
    world_model.let_go()
    assert asyncio.run(world_model.observe((*START, says("left")), (), seed=0)) == before


def test_what_cannot_be_asked_says_why(model: str, tmp_path: Path) -> None:
    async def ask(given: Any, *messages: Message) -> Any:
        return await WorldModel.of(given).observe((*START, *messages), (), seed=0)

    with pytest.raises(ConfigError, match=r"world_model: temperatur: unknown key. Did you mean 'temperature'"):
        WorldModel.of({"model": model, "temperatur": 1})
    with pytest.raises(ConfigError, match="holds no model"):
        asyncio.run(ask(str(tmp_path), says("left")))
    with pytest.raises(ContextLengthExceeded, match=r"tokens of 10"):
        asyncio.run(ask({"model": model, "max_context": 10}, says("left")))
    with pytest.raises(PolicyError, match="cannot be asked: the conversation cannot be rendered: LONE_SURROGATE"):
        asyncio.run(ask(model, says("\ud800")))
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(ConfigError, match="ends no user message with a token of its own"):
        asyncio.run(ask({"model": model, "chat_template": str(template)}, says("left")))
