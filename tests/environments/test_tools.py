"""The service desk: what is allowed, what is refused, and how it is judged."""

from __future__ import annotations

import asyncio
import copy
import itertools
from typing import Any

import pytest

from understudy.environments import Step, calls, says
from understudy.environments.tools import Tools
from understudy.environments.tools.world import Request, expected_world, read_world
from understudy.errors import ConfigError
from understudy.types import Message, ToolCall


def order(id: str, status: str, *items: str) -> dict[str, Any]:
    return {"id": id, "customer": "Ada", "status": status, "items": list(items), "address": "1 Oak Street"}


SHOP = {
    "orders": [
        order("elm", "pending", "lamp"),
        order("fjord", "shipped", "rug"),
        order("gecko", "delivered", "hat", "mug"),
        order("heron", "delivered", "bed") | {"customer": "Bo"},
    ],
    "stock": {"scarf": 2, "coat": 0},
}


def task(*requests: tuple[str, ...], says: tuple[str, ...] = ("Hi, I am Ada.",)) -> dict[str, Any]:
    wishes = [dict(zip(("kind", "item", "detail"), request, strict=False)) for request in requests]
    return {"customer": "Ada", "requests": wishes, "says": list(says), "shop": copy.deepcopy(SHOP)}


def run(level: int, given: dict[str, Any], *actions: Message) -> Step:
    async def play() -> Step:
        environment = Tools(level=level)
        step = await environment.reset(given)
        for action in actions:
            step = await environment.step({"agent": action})
        return step

    return asyncio.run(play())


def succeeded(step: Step) -> bool:
    assert step.success is not None
    return step.success["agent"] is True


@pytest.mark.parametrize(
    ("request_", "change"),
    [
        (Request("cancel", "lamp"), ("elm", "status", "cancelled")),
        (Request("address", "lamp", "9 Elm Street"), ("elm", "address", "9 Elm Street")),
        (Request("return", "hat"), ("gecko", "items", ["mug"])),
        (Request("exchange", "hat", "scarf"), ("gecko", "items", ["scarf", "mug"])),
    ],
)
def test_what_the_rules_allow_is_done(request_: Request, change: tuple[str, str, Any]) -> None:
    world = expected_world(read_world(SHOP), "Ada", [request_])
    assert getattr(world.orders[change[0]], change[1]) == change[2]
    assert world.refusals == {}


@pytest.mark.parametrize(
    ("request_", "refusals"),
    [
        (Request("cancel", "rug"), {"fjord": "not_pending"}),
        (Request("address", "hat", "x"), {"gecko": "not_pending"}),
        (Request("return", "lamp"), {"elm": "not_delivered"}),
        (Request("exchange", "rug", "scarf"), {"fjord": "not_delivered"}),
        (Request("exchange", "hat", "coat"), {"gecko": "out_of_stock"}),
    ],
)
def test_what_the_rules_forbid_is_refused_with_the_reason(request_: Request, refusals: dict[str, str]) -> None:
    before = read_world(SHOP)
    after = expected_world(before, "Ada", [request_])
    assert after.refusals == refusals
    assert after.orders == before.orders


def test_the_right_change_is_a_success_and_any_other_change_spoils_it() -> None:
    given = task(("cancel", "lamp"))
    assert succeeded(run(4, given, calls("cancel_order", order="elm"), says("Done.")))
    assert not succeeded(run(4, given, says("Done.")))
    assert not succeeded(run(4, given, calls("cancel_order", order="elm"), calls("cancel_order", order="fjord")))
    address = calls("change_address", order="heron", address="x")
    assert not succeeded(run(4, given, address, calls("cancel_order", order="elm")))


def test_a_refusal_needs_the_right_reason() -> None:
    given = task(("cancel", "rug"))
    assert succeeded(run(4, given, calls("refuse", order="fjord", reason="not_pending"), says("Sorry.")))
    assert not succeeded(run(4, given, calls("refuse", order="fjord", reason="not_delivered"), says("Sorry.")))
    assert not succeeded(run(4, given, calls("refuse", order="elm", reason="not_pending")))


def test_the_service_itself_lets_the_agent_break_the_rules_but_not_do_the_impossible() -> None:
    given = task(("cancel", "rug"))
    step = run(4, given, calls("cancel_order", order="fjord"))
    assert step.observations["agent"].messages[0].text() == "cancelled"
    for action in (
        calls("cancel_order", order="nope"),
        calls("return_item", order="gecko", item="lamp"),
        calls("exchange_item", order="gecko", item="hat", new_item="coat"),
        calls("find_customer", name="Nobody"),
    ):
        assert run(4, given, action).observations["agent"].messages[0].text().startswith("Error: ")


def test_a_customer_answers_what_is_asked_and_leaves_when_nothing_is_left_to_say() -> None:
    given = task(("cancel", "lamp"), says=("Hello.", "I am Ada.", "Yes."))
    step = run(5, given, says("Who are you?"))
    assert step.observations["agent"].messages == (Message("user", "I am Ada."),)
    assert run(5, given, *[says("x")] * 3).stop_reason == "customer_left"


def test_a_change_before_the_customers_yes_is_a_failure() -> None:
    given = task(("cancel", "lamp"), says=("Hello.", "I am Ada.", "Yes."))
    cancel = calls("cancel_order", order="elm")
    assert succeeded(run(5, given, says("Name?"), says("May I?"), cancel))
    assert not succeeded(run(5, given, says("Name?"), cancel, says("May I?")))


def test_the_tools_and_rules_are_those_that_the_wishes_need() -> None:
    assert [tool.name for tool in Tools(level=1).tools] == ["find_customer", "cancel_order", "refuse"]
    assert "stock" not in Tools(level=3).rules()
    assert "check_stock" in [tool.name for tool in Tools(level=3, kinds=["exchange"]).tools]


def test_half_of_the_wishes_are_forbidden_so_that_neither_answer_wins_by_itself() -> None:
    tasks = Tools(level=1).tasks("train")[:400]
    refused = [
        bool(expected_world(read_world(t["shop"]), t["customer"], [Request(**r) for r in t["requests"]]).refusals)
        for t in tasks
    ]
    assert 0.4 < sum(refused) / len(refused) < 0.6


@pytest.mark.parametrize(
    "arguments", [{"level": 9}, {"kinds": ["cancle"]}, {"kinds": []}, {"num_orders": [0, 1]}, {"num_requests": [3, 2]}]
)
def test_bad_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError):
        Tools(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"level": 5, "num_orders": [1, 1]}, {"level": 3, "num_orders": [1, 2], "num_requests": [1, 3]}]
)
def test_more_wishes_than_orders_are_refused_and_not_passed_over(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="each wish is for an order of its own; raise num_orders"):
        Tools(**arguments)


def test_shops_of_few_words_use_no_others_and_are_refused_where_a_shop_needs_more() -> None:
    words: dict[str, set[str]] = {"names": set(), "items": set(), "ids": set()}
    for drawn in itertools.islice(Tools(level=2, num_words=6).tasks("train"), 300):
        for order in drawn["shop"]["orders"]:
            words["names"].add(order["customer"])
            words["items"].update(order["items"])
            words["ids"].add(order["id"])
    assert {kind: len(found) for kind, found in words.items()} == {"names": 6, "items": 6, "ids": 6}
    with pytest.raises(ConfigError, match="num_words is 4, and the largest of these shops needs 5"):
        Tools(level=2, num_words=4)


@pytest.mark.parametrize(("level", "fewest"), [(1, 3), (2, 5), (3, 12), (4, 20), (5, 38)])
def test_the_fewest_words_are_enough(level: int, fewest: int) -> None:
    assert len(list(itertools.islice(Tools(level=level, num_words=fewest).tasks("train"), 300))) == 300


def test_with_an_open_book_look_ups_give_what_the_rules_hold() -> None:
    async def look_up(level: int, tool: str, **arguments: str) -> tuple[str, str]:
        environment = Tools(level=level, open_book=True)
        opening = await environment.reset(task(("cancel", "lamp")))
        step = await environment.step({"agent": Message("assistant", "", tool_calls=[ToolCall(tool, arguments)])})
        return opening.observations["agent"].messages[0].text(), step.observations["agent"].messages[0].text()

    rules, found = asyncio.run(look_up(1, "find_customer", name="Ada"))
    assert len(found.splitlines()) == 3
    assert rules.startswith(f"{found}\n")
    assert "\nBo bed heron delivered\n" in rules
    rules, found = asyncio.run(look_up(5, "get_order", order="gecko"))
    assert found == "items: hat, mug\nstatus: delivered\naddress: 1 Oak Street"
    assert "\nAda hat, mug gecko delivered, 1 Oak Street\n" in rules
    assert "\nIn stock: scarf 2, coat 0\nYou serve" in rules
    opening = asyncio.run(Tools(level=5).reset(task(("cancel", "lamp"))))
    assert "gecko" not in opening.observations["agent"].messages[0].text()
