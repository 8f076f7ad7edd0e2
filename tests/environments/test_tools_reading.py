"""Reading off a conversation how the service desk did: as the environment says it, and by what was shown alone."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from understudy.environments import ExpertStuck, HasReading, Observation, Reading, calls, says, user
from understudy.environments.tools import Tools
from understudy.environments.tools.tasks import ALL_KINDS
from understudy.policies import Context, with_call_ids
from understudy.policies.random_policy import RandomPolicy
from understudy.types import Message, ToolCall

Policy = Callable[[Tools, list[Message], Observation], Message]

FAILED, SOLVED = Reading("customer_left", 0.0), Reading("customer_left", 1.0)


def expert(environment: Tools, messages: list[Message], observation: Observation) -> Message:
    return environment.decide(observation)


def acting_at_random(seed: int) -> Policy:
    def act(environment: Tools, messages: list[Message], observation: Observation) -> Message:
        context = Context(tuple(messages), environment.tools, observation, len(messages), seed * 1000 + len(messages))
        return asyncio.run(RandomPolicy().act(context)).message

    return act


def slipping(seed: int) -> Policy:
    """Do what the expert does, with a slip now and then: an order touched unseen, in vain or wrongly, or calls twice.

    The expert mends what it can afterwards.
    """
    rng = random.Random(f"slips {seed}")

    def act(environment: Tools, messages: list[Message], observation: Observation) -> Message:
        try:
            due = environment.decide(observation)
        except ExpertStuck:
            return BYE
        if rng.random() < 0.7:
            return due
        ids = list(environment.state.world.orders)
        own = [order.id for order in environment.state.world.orders_of(environment.state.customer)]
        order = rng.choice([*ids, *own])
        is_seen = not environment.difficulty.lists_orders
        address = environment.state.world.orders[order].address if is_seen else "9 Oak Street"
        item = rng.choice([*environment.state.world.orders[order].items, "lamp"])
        slips = [
            says("Hm."),
            calls("get_order", order=order),
            calls("find_customer", name=environment.state.world.orders[order].customer),
            calls("refuse", order=order, reason=rng.choice(["not_pending", "not_delivered", "out_of_stock"])),
            calls("cancel_order", order=order),
            calls("change_address", order=order, address=address),
            calls("return_item", order=order, item=item),
            calls(
                "exchange_item", order=order, item=item, new_item=rng.choice([*environment.state.world.stock, "hat"])
            ),
            calls("check_stock", item=rng.choice([*environment.state.world.stock, "hat"])),
            Message("assistant", tool_calls=[*due.tool_calls, *due.tool_calls]),
        ]
        return rng.choice(slips)

    return act


def play(environment: Tools, task: Any, policy: Policy) -> tuple[list[Message], bool, str | None]:
    """Return the conversation of an episode, whether it was a success, and why it ended."""
    step = environment.open(task)
    messages = list(step.observations["agent"].messages)
    while not step.is_over:
        action = with_call_ids(policy(environment, messages, step.observations["agent"]), messages)
        step = environment.take(action)
        messages.append(action)
        messages += step.observations["agent"].messages if step.observations else ()
    assert step.success is not None
    return messages, step.success["agent"] is True, step.stop_reason


def played(level: int, policy: Policy = expert, *, index: int = 0, **arguments: Any) -> tuple[Any, list[Message]]:
    """Return a task and a conversation about it."""
    environment = Tools(level=level, **arguments)
    task = environment.tasks("train")[index]
    return task, play(environment, task, policy)[0]


def following(*actions: Message) -> Policy:
    """Take the given actions, one after the other."""
    left = list(actions)
    return lambda environment, messages, observation: left.pop(0)


def has_looked(messages: Sequence[Message], task: Any, *, lists_orders: bool) -> bool:
    """Say whether the customer was looked up, and every order that was touched or wished about, before any change."""
    looked: set[str] = set()
    names, touched = set(), set()
    shop = {order["id"]: order for order in task["shop"]["orders"]}
    wished = {request["item"] for request in task["requests"]}
    for place, message in enumerate(messages):
        for call, result in zip(message.tool_calls, messages[place + 1 :], strict=False):
            if result.text().startswith("Error:"):
                continue
            arguments = call.parsed_arguments()
            if call.name == "find_customer":
                names.add(arguments["name"])
                if lists_orders:
                    looked |= {id for id, order in shop.items() if order["customer"] == arguments["name"]} - touched
            elif call.name == "get_order":
                looked |= {arguments["order"]} - touched
            elif call.name not in ("check_stock", "refuse"):
                touched.add(arguments["order"])
    needed = {
        id for id, order in shop.items() if order["customer"] == task["customer"] and wished & set(order["items"])
    }
    return task["customer"] in names and needed | touched <= looked


LEVELS = [
    *({"level": level} for level in (1, 2, 3, 4, 5)),
    {"level": 1, "open_book": True},
    {"level": 2, "kinds": ALL_KINDS, "num_requests": [1, 2]},
    {"level": 5, "open_book": True},
    {"level": 5, "kinds": ["exchange"]},
]


@pytest.mark.parametrize("arguments", LEVELS, ids=str)
def test_what_the_expert_does_is_read_as_solved_at_its_last_word_and_not_before(arguments: dict[str, Any]) -> None:
    environment = Tools(**arguments)
    assert isinstance(environment, HasReading)
    for task in environment.tasks("train")[:30]:
        messages, is_success, _ = play(environment, task, expert)
        assert is_success
        assert environment.read(task, messages) == SOLVED
        assert {environment.read(task, messages[:end]) for end in range(len(messages))} == {Reading()}


@pytest.mark.parametrize("arguments", LEVELS, ids=str)
def test_every_episode_is_read_as_the_environment_judges_it(arguments: dict[str, Any]) -> None:
    environment = Tools(**arguments)
    found = []
    for index, task in enumerate(environment.tasks("train")[:40]):
        for policy in (acting_at_random(index), slipping(index), slipping(index + 1000)):
            messages, is_success, stop_reason = play(environment, task, policy)
            read = environment.read(task, messages)
            assert read.stop_reason == (stop_reason if stop_reason != "max_steps" else None)
            assert {environment.read(task, messages[:end]) for end in range(len(messages))} == {Reading()}
            if stop_reason == "max_steps":
                continue
            can_be_told = has_looked(messages, task, lists_orders=environment.difficulty.lists_orders)
            assert read == (SOLVED if is_success and can_be_told else FAILED), messages
            found.append((is_success, can_be_told))
    assert {(True, True), (False, True), (False, False)} <= set(found)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_farewell_at_once_and_a_wrong_answer_are_failures(level: int) -> None:
    for index in range(20):
        task, messages = played(level, following(says("It is done.")), index=index)
        assert Tools(level=level).read(task, messages) == FAILED
        _, messages = played(level, index=index)
        for place, message in enumerate(messages):
            for call in message.tool_calls:
                if call.name in ("find_customer", "get_order"):
                    continue
                order = call.parsed_arguments()["order"]
                wrong = {"order": order, "reason": "out_of_stock"}
                worse = [*messages[:place], calls("refuse", **wrong), *messages[place + 1 :]]
                assert Tools(level=level).read(task, worse) == FAILED
                assert Tools(level=level).read(task, [*messages[:place], *messages[place + 2 :]]) == FAILED


def at_the_desk(*requests: tuple[str, ...], says: Sequence[str] = ("Hi, I am Ada.",)) -> dict[str, Any]:
    """Return a task whose shop is empty: all that is known of it has to be shown."""
    wishes = [dict(zip(("kind", "item", "detail"), request, strict=False)) for request in requests]
    return {"customer": "Ada", "requests": wishes, "says": list(says), "shop": {"orders": [], "stock": {}}}


def done(call: Message, *results: str) -> list[Message]:
    """Return an action with what was observed after it."""
    return [call, *(Message("tool", result) for result in results)]


def record(status: str = "pending", items: str = "lamp", address: str = "1 Oak Street") -> str:
    return f"items: {items}\nstatus: {status}\naddress: {address}"


HELLO = user("Hi, I am Ada.")
BYE = says("It is done.")
FIND, GET = calls("find_customer", name="Ada"), calls("get_order", order="elm")
CANCEL, CANCELLED = calls("cancel_order", order="elm"), "cancelled"
REFUSE = calls("refuse", order="elm", reason="not_pending")


def read(task: Any, *messages: Message, level: int = 4) -> Reading:
    return Tools(level=level).read(task, messages)


@pytest.mark.parametrize("status", ["pending", "shipped", "delivered", "cancelled"])
def test_what_was_imagined_decides_and_not_the_shop(status: str) -> None:
    cancel = at_the_desk(("cancel", "lamp"))
    look = [HELLO, *done(FIND, "elm"), *done(GET, record(status))]
    right = SOLVED if status == "pending" else FAILED
    assert read(cancel, *look, *done(CANCEL, CANCELLED), BYE) == right
    assert read(cancel, *look, *done(REFUSE, "noted"), BYE) == (FAILED if status == "pending" else SOLVED)
    listed = [HELLO, *done(FIND, f"lamp: elm, {status}")]
    assert read(cancel, *listed, *done(CANCEL, CANCELLED), BYE, level=1) == right


def test_a_status_that_was_imagined_otherwise_turns_the_value_round() -> None:
    for index in range(20):
        task, messages = played(1, index=index)
        other = {"pending": "shipped", "shipped": "pending", "delivered": "pending"}
        changed = []
        for message in messages:
            head, _, status = message.text().rpartition(", ")
            is_order = message.role == "tool" and status in other
            changed.append(replace(message, content=f"{head}, {other[status]}") if is_order else message)
        assert changed != messages
        assert Tools(level=1).read(task, messages) == SOLVED
        assert Tools(level=1).read(task, changed) == FAILED


def test_every_kind_of_change_is_read_and_nothing_else_may_be_touched() -> None:
    look = [*done(FIND, "elm\nfir"), *done(GET, record("delivered", "lamp, hat"))]
    look += done(calls("get_order", order="fir"), record("pending", "rug", "2 Elm Street"))
    stock = done(calls("check_stock", item="bed"), "2")
    moved = done(calls("change_address", order="fir", address="9 Oak Street"), "changed")
    returned = done(calls("return_item", order="elm", item="lamp"), "returned")
    exchanged = done(calls("exchange_item", order="elm", item="hat", new_item="bed"), "exchanged")
    address, back, swap = ("address", "rug", "9 Oak Street"), ("return", "lamp"), ("exchange", "hat", "bed")
    everything = at_the_desk(address, back, swap)
    assert read(everything, HELLO, *look, *stock, *moved, *returned, *exchanged, BYE) == SOLVED
    assert read(everything, HELLO, *look, *stock, *moved, *returned, BYE) == FAILED
    assert read(at_the_desk(address), HELLO, *look, *moved, BYE) == SOLVED
    assert read(at_the_desk(address), HELLO, *look, *moved, *returned, BYE) == FAILED
    assert read(at_the_desk(swap), HELLO, *look, *exchanged, BYE) == SOLVED  # it worked, so there was one
    assert read(at_the_desk(swap), HELLO, *look, *done(exchanged[0], "Error: 'bed' is not in stock"), BYE) == FAILED
    again = done(calls("change_address", order="fir", address="2 Elm Street"), "changed")
    assert read(at_the_desk(back), HELLO, *look, *moved, *again, *returned, BYE) == SOLVED


def test_out_of_stock_is_shown_by_the_stock_and_by_an_exchange_that_failed() -> None:
    swap = at_the_desk(("exchange", "lamp", "bed"))
    look = [HELLO, *done(FIND, "elm"), *done(GET, record("delivered"))]
    refused = done(calls("refuse", order="elm", reason="out_of_stock"), "noted")
    exchange = calls("exchange_item", order="elm", item="lamp", new_item="bed")
    for shown, reading in (
        (done(calls("check_stock", item="bed"), "0"), SOLVED),
        (done(calls("check_stock", item="bed"), "1"), FAILED),
        (done(exchange, "Error: 'bed' is not in stock"), SOLVED),
        ([], FAILED),
    ):
        assert read(swap, *look, *shown, *refused, BYE) == reading


def test_a_change_before_the_yes_is_a_failure() -> None:
    cancel = at_the_desk(("cancel", "lamp"), says=("Hello.", "I am Ada.", "Yes."))
    begin = [user("Hello."), says("Who are you?"), user("I am Ada."), *done(FIND, "elm"), *done(GET, record())]
    asked, cancelled = [says("Shall I?"), user("Yes.")], done(CANCEL, CANCELLED)
    assert read(cancel, *begin, *asked, *cancelled, BYE, level=5) == SOLVED
    assert read(cancel, *begin, *cancelled, *asked, BYE, level=5) == FAILED
    assert read(cancel, *begin, *cancelled, *asked, BYE, level=4) == SOLVED
    assert read(cancel, *begin, *cancelled, BYE, level=5) == Reading()


def test_what_was_not_looked_up_before_it_was_changed_cannot_be_told() -> None:
    cancel, move = at_the_desk(("cancel", "lamp")), at_the_desk(("address", "lamp", "9 Oak Street"))
    find, get, cancelled = done(FIND, "elm"), done(GET, record()), done(CANCEL, CANCELLED)
    assert read(cancel, HELLO, *find, *get, *cancelled, BYE) == SOLVED
    assert read(cancel, HELLO, *get, *find, *cancelled, BYE) == SOLVED
    assert read(cancel, HELLO, *find, *cancelled, BYE) == FAILED
    assert read(cancel, HELLO, *get, *cancelled, BYE) == FAILED
    assert read(cancel, HELLO, *find, *cancelled, *get, BYE) == FAILED
    moved = done(calls("change_address", order="elm", address="9 Oak Street"), "changed")
    assert read(move, HELLO, *find, *get, *moved, *done(GET, record(address="9 Oak Street")), BYE) == SOLVED
    other = done(calls("cancel_order", order="fir"), CANCELLED)
    assert read(cancel, HELLO, *find, *get, *cancelled, *other, BYE) == FAILED


def test_a_call_that_was_refused_did_nothing() -> None:
    cancel = at_the_desk(("cancel", "lamp"))
    look = [HELLO, *done(FIND, "elm"), *done(GET, record())]
    error = done(calls("cancel_order", order="fir"), "Error: there is no order 'fir'")
    assert read(cancel, *look, *error, *done(CANCEL, CANCELLED), BYE) == SOLVED
    assert read(cancel, *look, *done(CANCEL, "Error: there is no order 'elm'"), BYE) == FAILED
    assert read(cancel, HELLO, *done(FIND, "Error: no"), *done(GET, record()), *done(CANCEL, CANCELLED), BYE) == FAILED


def test_results_belong_to_the_calls_of_their_ids_and_else_to_those_of_their_places() -> None:
    cancel = at_the_desk(("cancel", "lamp"))
    names, orders = ("find_customer", "get_order", "get_order"), ({"name": "Ada"}, {"order": "elm"}, {"order": "fir"})
    results = ("elm\nfir", record(), record("shipped", "rug"))
    end = [*done(CANCEL, CANCELLED), BYE]
    for ids in (("a", "b", "c"), (None, None, None), ("a", "a", "a")):
        look = Message("assistant", tool_calls=[ToolCall(*one) for one in zip(names, orders, ids, strict=True)])
        shown = [Message("tool", text, tool_call_id=id) for text, id in zip(results, ids, strict=True)]
        assert read(cancel, HELLO, look, *shown, *end) == SOLVED
        if len(set(ids)) == 3:
            assert read(cancel, HELLO, look, *reversed(shown), *end) == SOLVED
        nameless = [replace(message, tool_call_id=None) for message in shown]
        assert read(cancel, HELLO, look, *nameless, *end) == SOLVED
    text = ToolCall("get_order", '{"order": "elm"}', "x")
    look = [*done(FIND, "elm"), Message("assistant", tool_calls=[text]), Message("tool", record(), tool_call_id="x")]
    assert read(cancel, HELLO, *look, *end) == SOLVED


MALFORMED = [
    "", " ", "?", "pending", "lamp: elm", "lamp: elm, lost", "lamp elm pending", "items: lamp",
    "items: lamp\nstatus: lost", "items: lamp\nstatus: gone\naddress: x", "status: pending\nitems: lamp\naddress: x",
    "-1", "two", "²", "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_a_look_up_that_cannot_be_read_is_a_failure_and_no_fault(level: int, malformed: str) -> None:
    environment = Tools(level=level)
    for index in range(6):
        task, messages = played(level, index=index)
        touched = {request["item"] for request in task["requests"]}
        for place, message in enumerate(messages):
            is_needed = message.name in ("find_customer", "check_stock") or bool(touched & set(_items(message)))
            spoilt = [*messages[:place], replace(message, content=malformed), *messages[place + 1 :]]
            if message.role == "tool" and message.name in ("find_customer", "get_order", "check_stock") and is_needed:
                assert environment.read(task, spoilt) == FAILED


def _items(message: Message) -> list[str]:
    return message.text().partition("\n")[0].removeprefix("items: ").split(", ")


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("cancel_order", "{"),
        ToolCall("cancel_order", "[1]"),
        ToolCall("cancel_order", {}),
        ToolCall("cancel_order", {"order": ["elm"]}),
        ToolCall("cancel_order", {"order": "elm", "at": "once"}),
        ToolCall("refuse", {"order": "elm", "reason": "mood"}),
        ToolCall("return_item", {"order": "elm", "item": "bed"}),
        ToolCall("exchange_item", {"order": "elm"}),
        ToolCall("delete_order", {"order": "elm"}),
    ],
    ids=str,
)
def test_calls_that_the_shop_would_refuse_are_failures_also_where_it_is_imagined_otherwise(call: ToolCall) -> None:
    cancel = at_the_desk(("cancel", "lamp"))
    look = [HELLO, *done(FIND, "elm"), *done(GET, record())]
    wrong = done(Message("assistant", tool_calls=[call]), CANCELLED)
    assert read(cancel, *look, *wrong, BYE) == FAILED
    assert read(cancel, *look, *wrong, *done(CANCEL, CANCELLED), BYE) == FAILED
    look_up = Message("assistant", tool_calls=[ToolCall("get_order", call.arguments), ToolCall("find_customer", "{")])
    assert read(cancel, HELLO, *done(look_up, record(), "elm"), BYE) == FAILED


def test_the_episode_under_way_and_the_task_are_left_alone() -> None:
    environment = Tools(level=4)
    task, messages = played(4, index=3)
    under_way = environment.tasks("train")[1]
    environment.open(under_way)
    state, toolbox, before = environment.state, environment.toolbox, copy.deepcopy(environment.state)
    kept = copy.deepcopy(task)
    assert environment.read(task, messages) == SOLVED
    assert environment.state is state
    assert environment.toolbox is toolbox
    assert (state, task) == (before, kept)
    while not (step := environment.take(environment.decide(Observation()))).is_over:
        pass
    assert step.success == {"agent": True}


def test_it_is_read_without_an_episode_and_nothing_of_no_task() -> None:
    task, messages = played(2)
    environment = Tools(level=2)
    assert environment.read(task | {"shop": {"orders": [], "stock": {}}}, messages) == SOLVED
    assert environment.read(None, messages) == Reading()
    assert environment.read(task, []) == Reading()
