"""Hindsight: a failed play becomes a successful one of another task, with every message as it would then have been."""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, replace
from typing import Any

import pytest

from understudy import registry
from understudy.collect import Play, play_all
from understudy.environments import HasRelabelling, split_of
from understudy.environments.grid import Grid
from understudy.environments.grid.puzzle import parse_map, solve
from understudy.environments.math import Math
from understudy.environments.math.problems import problem_of
from understudy.environments.tools import Tools
from understudy.environments.tools.tasks import draw_address, draw_script
from understudy.environments.tools.world import Request, read_world, refusal
from understudy.errors import EnvironmentFault
from understudy.policies import Action, Context, EpisodeStart, Policy, with_call_ids
from understudy.policies.labelled import LabelledPolicy
from understudy.policies.mixture import MixturePolicy
from understudy.policies.replay import ReplayPolicy
from understudy.policies.scripted import ExpertPolicy
from understudy.types import ORIGIN, Episode, Message, ToolCall


def mistaken(name: str, arguments: dict[str, Any], task: Any, rng: random.Random) -> Any:
    """Return another task that an agent could take this one for: of the same shop, or any other problem."""
    if name == "math":
        return rng.choice(make(name, arguments).tasks("train")[: 5 * NUM])
    difficulty = make(name, arguments).difficulty
    world = read_world(task["shop"])
    orders = [order for order in world.orders.values() if order.items]
    customer = rng.choice(orders).customer if name == "tools" and arguments["level"] != 2 else task["customer"]
    own = [order for order in orders if order.customer == customer]
    requests = []
    for order in rng.sample(own, min(len(own), difficulty.num_requests[1])):
        kind = rng.choice([kind for kind in difficulty.kinds if kind != "exchange"])
        requests.append(Request(kind, rng.choice(order.items), draw_address(rng) if kind == "address" else ""))
    will_confirm = any(refusal(world, customer, request) is None for request in requests) and difficulty.must_confirm
    says = draw_script(rng, customer, requests, difficulty, will_confirm=will_confirm)
    return {"customer": customer, "requests": [asdict(one) for one in requests], "says": says, "shop": task["shop"]}


class Mistaking(Policy):
    """Does what the expert would do at another task."""

    name = "mistaking"

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self._environment = name, arguments

    def for_episode(self, start: EpisodeStart) -> Policy:
        name, arguments = self._environment
        other = mistaken(name, arguments, start.task, random.Random(start.id))
        environment = make(name, arguments)
        step = environment.open(other)
        actions = []
        while not step.is_over:
            actions.append(environment.decide(step.observations["agent"]))
            step = environment.take(actions[-1])
        return _Doing(tuple(actions))

    async def act(self, context: Context) -> Action:
        raise NotImplementedError


class _Doing(Policy):
    name = "mistaking"

    def __init__(self, actions: tuple[Message, ...]) -> None:
        self._actions = actions

    async def act(self, context: Context) -> Action:
        return Action(with_call_ids(self._actions[min(context.turn, len(self._actions) - 1)], context.messages))


CASES: list[tuple[str, dict[str, Any], Policy | None, int]] = [
    ("grid", {}, MixturePolicy(0.5), 20),
    ("grid", {"interface": "text", "view": "replace", "spare_moves": 4}, MixturePolicy(0.5), 20),
    ("grid", {"puzzle": "sokoban", "min_moves": 3, "spare_moves": 4}, MixturePolicy(0.3), 4),
    ("math", {"max_operations": 2}, None, 50),
    ("tools", {"level": 1}, None, 50),
    ("tools", {"level": 2}, None, 50),
    ("tools", {"level": 3}, None, 20),
    ("tools", {"level": 4, "num_requests": [1, 3]}, None, 3),
]
"""Environment, arguments, policy (None: one that takes tasks for others), and how many at least are relabelled."""

NUM = 200


def make(name: str, arguments: dict[str, Any]) -> Any:
    return registry.create("environments", name, arguments)


def play(name: str, arguments: dict[str, Any], policy: Policy, which: list[Play]) -> list[Episode]:
    found: list[Episode] = []
    asyncio.run(
        play_all(which, lambda: make(name, arguments), {"agent": policy}, found.append, concurrency=4, max_turns=30)
    )
    assert [episode.error for episode in found if episode.error is not None] == []
    return sorted(found, key=lambda episode: episode.seed or 0)


def failed(name: str, arguments: dict[str, Any], policy: Policy | None = None) -> list[Episode]:
    policy = policy or Mistaking(name, arguments)
    tasks = make(name, arguments).tasks("train")
    which = [Play(id=f"e{i}", environment=name, task=tasks[i], seed=i, split="train") for i in range(NUM)]
    return [episode for episode in play(name, arguments, policy, which) if not episode.success]


def test_an_episode_of_no_known_split_becomes_none_of_a_held_out_task() -> None:
    arguments = {"interface": "text"}
    episodes = [replace(episode, split=None) for episode in failed("grid", arguments, MixturePolicy(0.3))]
    found = [new for episode in episodes for new in make("grid", arguments).relabel(episode)]
    assert len(found) > 5
    assert {split_of(new.task) for new in found} == {"train"}


@pytest.mark.parametrize(("name", "arguments", "policy", "fewest"), CASES)
def test_the_same_actions_played_at_the_new_task_make_the_very_episode(
    name: str, arguments: dict[str, Any], policy: Policy | None, fewest: int
) -> None:
    environment = make(name, arguments)
    assert isinstance(environment, HasRelabelling)
    episodes = failed(name, arguments, policy)
    found = [(episode, new) for episode in episodes for new in environment.relabel(episode)]
    assert len(found) >= fewest
    which = [Play(new.id, name, new.task, new.seed, 0, "train", dict(old.metadata)) for old, new in found]
    again = play(name, arguments, ReplayPolicy([new for _, new in found]), which)
    for (old, new), replayed in zip(found, again, strict=True):
        assert new.task != old.task
        assert split_of(new.task) == "train"
        assert (new.success, new.reward, new.id) == (True, 1.0, f"{old.id}-hindsight")
        assert (replayed.success, replayed.reward, replayed.stop_reason) == (True, new.reward, new.stop_reason)
        assert new.metadata == old.metadata | {ORIGIN: old.id}
        mine, theirs = new.trajectories[0], replayed.trajectories[0]
        assert [(t.parent, t.observation, t.tools, t.action, t.reward) for t in mine.turns] == [
            (t.parent, t.observation, t.tools, t.action, t.reward) for t in theirs.turns
        ]
        done = [turn.action for turn in old.trajectories[0].turns if turn.action]
        assert [turn.action for turn in mine.turns if turn.action] == done[: new.num_actions()]


def test_on_a_grid_the_target_is_where_the_way_led_and_the_way_is_short_enough() -> None:
    environment = Grid(interface="text")
    for episode in failed("grid", {"interface": "text"}, MixturePolicy(0.4)):
        for new in environment.relabel(episode):
            layout, start = parse_map(new.task["map"])
            old_layout, old_start = parse_map(episode.task["map"])
            assert (layout.walls, start) == (old_layout.walls, old_start)
            assert layout.targets != old_layout.targets
            shortest = solve(layout, start)
            assert shortest is not None
            assert len(shortest) <= new.num_actions() <= len(shortest) + 2 == new.task["max_moves"]
            (target,) = layout.targets
            told = f"A target is at row {target[0] + 1}, column {target[1] + 1}."
            shown = [message.text() for message in new.trajectories[0].messages() if message.role == "user"]
            assert all(told in text for text in shown)


def test_at_the_desk_the_customer_asks_for_what_was_done() -> None:
    shop = {
        "orders": [
            {"id": "otter", "customer": "Ada", "status": "pending", "items": ["lamp"], "address": "1 Oak Street"},
            {"id": "maple", "customer": "Ben", "status": "shipped", "items": ["desk"], "address": "2 Oak Street"},
        ],
        "stock": {},
    }
    task = {
        "customer": "Ada",
        "requests": [{"kind": "cancel", "item": "lamp", "detail": ""}],
        "says": ["Hi, I am Ada. Please cancel my order of the lamp."],
        "shop": shop,
    }

    refusal = {"order": "maple", "reason": "not_pending"}

    class Mistaken(Policy):
        async def act(self, context: Context) -> Action:
            actions = [
                Message("assistant", None, tool_calls=(ToolCall("find_customer", {"name": "Ben"}, "a"),)),
                Message("assistant", None, tool_calls=(ToolCall("refuse", refusal, "b"),)),
                Message("assistant", "I am sorry."),
            ]
            return Action(actions[context.turn])

    (episode,) = play("tools", {"level": 1}, Mistaken(), [Play(id="e", task=task)])
    assert episode.success is False
    (new,) = Tools(level=1).relabel(episode)
    opening = new.trajectories[0].turns[0].observation[-1].text()
    assert "Ben" in opening
    assert "desk" in opening
    assert not {"Ada", "lamp"} & set(opening.replace(".", "").split())
    assert new.task["requests"] == [{"kind": "cancel", "item": "desk", "detail": ""}]


def test_what_was_not_looked_up_or_not_done_serves_nobody() -> None:
    class Guessing(Policy):
        async def act(self, context: Context) -> Action:
            calls = (ToolCall("cancel_order", {"order": order}, "a"),)
            return Action(
                Message("assistant", None, tool_calls=calls) if context.turn == 0 else Message("assistant", ".")
            )

    tasks = Tools(level=1).tasks("train")
    task = next(task for task in tasks if all(o["status"] == "pending" for o in task["shop"]["orders"]))
    order = next(
        o["id"] for o in task["shop"]["orders"] if o["status"] == "pending" and o["customer"] != task["customer"]
    )
    (guessed,) = play("tools", {"level": 1}, Guessing(), [Play(id="e", task=task)])
    assert guessed.success is False
    assert Tools(level=1).relabel(guessed) == []

    class Silent(Policy):
        async def act(self, context: Context) -> Action:
            return Action(Message("assistant", "No."))

    (silent,) = play("tools", {"level": 1}, Silent(), [Play(id="e", task=task)])
    assert Tools(level=1).relabel(silent) == []


@pytest.mark.parametrize(
    ("expression", "is_asked"),
    [
        ("3 + 4", True),
        ("3 * (4 + 5)", True),
        ("3 - (4 - 5)", True),
        ("3 + 4 + 5", True),
        ("3+4", False),  # not as problems are written
        ("(3 + 4)", False),
        ("3 * 4 + 5 * 6", True),
        ("3 - 4 * 5", False),  # what stands behind a minus is in brackets
        ("3 - (4 * 5)", True),
        ("7", False),
        ("3 / 4", False),
        ("3 ** 4", False),
        ("3 + 100", False),
        ("3 + 4 + 5 + 6 + 7", False),
        ("-3 + 4", False),
        ("3 +", False),
    ],
)
def test_only_expressions_that_problems_have_are_asked_for(expression: str, is_asked: bool) -> None:
    found = problem_of(expression, num_operations=(1, 3), max_operand=99)
    assert (found is not None) is is_asked
    if found is not None:
        assert found.question == f"Compute {expression}."


def test_every_expression_that_is_drawn_is_one_that_is_asked_for() -> None:
    tasks = Math(kinds=["expression"], max_operations=4).tasks("train")[:200]
    for task in tasks:
        found = problem_of(task["expression"], num_operations=(1, 4), max_operand=99)
        assert found is not None
        assert (found.question, found.answer) == (task["question"], task["answer"])


def test_labels_of_the_old_goal_are_left_out() -> None:
    environment = Grid(interface="text")
    episodes = failed("grid", {"interface": "text"}, LabelledPolicy(MixturePolicy(0.4), ExpertPolicy()))
    found = [new for episode in episodes for new in environment.relabel(episode)]
    assert len(found) > 10
    assert any(turn.is_label for episode in episodes for _, _, turn in episode.turns())
    assert not any(turn.is_label or turn.weight != 1 for new in found for _, _, turn in new.turns())


def test_an_episode_under_way_goes_on_undisturbed() -> None:
    environment = Grid(interface="text")
    other = failed("grid", {"interface": "text"}, MixturePolicy(0.4))[0]
    task = environment.tasks("test")[0]
    expert = environment.expert("agent")
    step = environment.open(task)
    step = environment.take(expert(step.observations["agent"]))
    before = environment.snapshot()
    environment.relabel(other)
    assert environment.snapshot() == before
    while not step.is_over:
        step = environment.take(expert(step.observations["agent"]))
    assert (step.success or {})["agent"] is True


def test_an_episode_of_something_else_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match="no task of Grid"):
        Grid().relabel(failed("math", {})[0])
    with pytest.raises(EnvironmentFault, match="has 0 trajectories"):
        Grid().relabel(Episode("e", task=Grid().tasks("train")[0]))
