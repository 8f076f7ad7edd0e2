"""Reading off a conversation how the service desk did, also where it was imagined.

At its end the conversation is played again, in a shop that holds what the conversation has shown and nothing else. So
the rules, and what counts as success, are those of the environment, and what the agent was told decides how it did.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, get_args

from understudy.environments.reading import Reading
from understudy.types import JSON, Message, ToolCall

from .world import Status

if TYPE_CHECKING:
    from .environment import Tools

LOOK_UPS = ("find_customer", "get_order", "check_stock")
NOT_SHOWN = "(not shown)"

_STATUS = "|".join(get_args(Status))
_LISTED = re.compile(rf"(?P<items>.*): (?P<id>.*), (?P<status>{_STATUS})")
_ROW = re.compile(rf"[^ ]+ (?P<items>.*) (?P<id>[^ ]+) (?P<status>{_STATUS})")
_RECORD = re.compile(rf"items: (?P<items>.*)\nstatus: (?P<status>{_STATUS})\naddress: (?P<address>.*)")
_COUNT = re.compile(r"[0-9]{1,9}")


def read_conversation(environment: Tools, task: JSON, messages: Sequence[Message]) -> Reading:
    """Return how a conversation stands: nothing before its end, then 1 or 0.

    It ends with the agent's first message without calls when the customer has said everything. What cannot be told from
    it then counts as failed, though the environment may know better: a look-up that cannot be read, and what was done
    to an order without having looked it up, by a guessed id or by the records of an open book. A look-up after the
    order was changed comes too late.

    Args:
        environment: has the tools and the rules; its episode under way is left alone.
        task: says what is wanted. Its shop is not looked at. Of None, nothing is known.
        messages: from the beginning on.
    """
    if task is None:
        return Reading()
    num_said = 0
    for place, message in enumerate(messages):
        num_said += message.role == "user"
        if _is_text(message) and num_said >= len(task["says"]):
            return Reading("customer_left", float(_is_right(environment, task, messages[:place])))
    return Reading()


def shown_shop(messages: Sequence[Message], *, lists_orders: bool, open_book: bool) -> JSON:
    """Return the shop before anything was changed, as a task holds it and as far as the results of calls show it.

    The first that is shown of an order or of a stock counts. It is left out where that cannot be read, or the order was
    changed before.

    Args:
        lists_orders: looking a customer up gives whole orders, and not only their ids.
        open_book: they are listed as rows of an open book.
    """
    listing = (_ROW if open_book else _LISTED) if lists_orders else None
    owners: dict[str, str] = {}
    orders: dict[str, dict[str, JSON] | None] = {}
    stock: dict[str, int | None] = {}
    for call, result in _calls(messages):
        given = _texts(call)
        id, new_item = given.get("order", ""), given.get("new_item", "")
        if result == f"Error: {new_item!r} is not in stock":
            stock.setdefault(new_item, 0)
        elif _is_error(result):
            continue
        elif call.name == "find_customer":
            for listed, order in _listed_orders(result, listing):
                owners.setdefault(listed, given.get("name", ""))
                if order is not None:
                    orders.setdefault(listed, order)
        elif call.name == "get_order":
            orders.setdefault(id, _order(_RECORD.fullmatch(result)))
        elif call.name == "check_stock":
            stock.setdefault(given.get("item", ""), int(result) if _COUNT.fullmatch(result) else None)
        elif call.name != "refuse":
            orders.setdefault(id, None)
            if call.name == "exchange_item":
                stock.setdefault(new_item, 1)  # there was one at least
    known = {id: order for id, order in orders.items() if order is not None}
    return {
        "orders": [{"id": id, "customer": owners.get(id, NOT_SHOWN)} | order for id, order in known.items()],
        "stock": {item: count for item, count in stock.items() if count is not None},
    }


def _is_right(environment: Tools, task: JSON, messages: Sequence[Message]) -> bool:
    """Say whether what was done makes the shop as the rules would have it; False where that cannot be told."""
    replay = copy.copy(environment)  # with an episode and tools of its own
    replay.toolbox = replay.make_toolbox()
    try:
        lists_orders, open_book = environment.difficulty.lists_orders, environment.open_book
        replay.open(task | {"shop": shown_shop(messages, lists_orders=lists_orders, open_book=open_book)})
    except (KeyError, StopIteration):  # the rules ask for a stock or an order that was never shown
        return False
    for place, message in enumerate(messages):
        if _is_text(message):
            replay.on_text(message.text())
        for call, result in _answered(messages, place):
            is_done = call.name not in LOOK_UPS and not _is_error(result)
            if is_done and _is_error(replay.toolbox.call(call)):  # it was done to what was never shown
                return False
    return replay.is_success()


def _is_text(message: Message) -> bool:
    return message.role == "assistant" and not message.tool_calls


def _is_error(result: str) -> bool:
    return result.startswith("Error:")


def _calls(messages: Sequence[Message]) -> Iterator[tuple[ToolCall, str]]:
    """Yield all calls with their results."""
    for place in range(len(messages)):
        yield from _answered(messages, place)


def _answered(messages: Sequence[Message], place: int) -> Iterator[tuple[ToolCall, str]]:
    """Yield the calls of one message with the results that follow it: the one of a call's id, else the next."""
    results = list(takewhile(lambda message: message.role == "tool", messages[place + 1 :]))
    for call in messages[place].tool_calls:
        named = [result for result in results if result.tool_call_id == call.id]
        for result in (named or results)[:1]:
            results.remove(result)
            yield call, result.text()


def _texts(call: ToolCall) -> dict[str, str]:
    """Return the arguments that are texts, as all are that the tools take."""
    try:
        return {name: value for name, value in call.parsed_arguments().items() if isinstance(value, str)}
    except ValueError:
        return {}


def _listed_orders(result: str, listing: re.Pattern[str] | None) -> list[tuple[str, dict[str, JSON] | None]]:
    """Return the ids of a customer's orders, with the orders where they are listed; none if a line cannot be read."""
    lines = result.split("\n")
    if listing is None:
        return [(line, None) for line in lines]
    found = [listing.fullmatch(line) for line in lines]
    return [(listed["id"], _order(listed)) for listed in found if listed is not None] if all(found) else []


def _order(found: re.Match[str] | None) -> dict[str, JSON] | None:
    """Return what was shown of an order; None where it cannot be read."""
    if found is None:
        return None
    items = found["items"].split(", ") if found["items"] else []
    return {"status": found["status"], "items": items, "address": found.groupdict().get("address", NOT_SHOWN)}
