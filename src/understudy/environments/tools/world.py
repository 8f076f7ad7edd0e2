"""The shop: customers, orders, stock, what can be requested, and what the rules say to each request.

The service executes any call that makes sense. Keeping the rules is the agent's part, as in τ-bench, and it is judged
by comparing the shop as the agent left it with the shop as the rules would have it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from understudy.types import JSON

Status = Literal["pending", "shipped", "delivered", "cancelled"]
Kind = Literal["cancel", "address", "return", "exchange"]
Reason = Literal["not_pending", "not_delivered", "out_of_stock"]

NEEDED_STATUS: dict[Kind, Status] = {
    "cancel": "pending",
    "address": "pending",
    "return": "delivered",
    "exchange": "delivered",
}


@dataclass(slots=True)
class Order:
    """One order of one customer. Items that were given back stand in `returned`."""

    id: str
    customer: str
    status: Status
    items: list[str]
    address: str
    returned: list[str] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """All that the service knows: orders by id, stock by item, and the refusals that were written down."""

    orders: dict[str, Order]
    stock: dict[str, int]
    refusals: dict[str, Reason] = field(default_factory=dict)

    def orders_of(self, customer: str) -> list[Order]:
        """Return a customer's orders, oldest first."""
        return [order for order in self.orders.values() if order.customer == customer]


@dataclass(frozen=True, slots=True)
class Request:
    """What a customer wants with one item: `detail` is the new address, or the item to have instead."""

    kind: Kind
    item: str
    detail: str = ""


def read_world(value: Mapping[str, Any]) -> World:
    """Read the shop from a task."""
    orders = [Order(**order) for order in value["orders"]]
    return World({order.id: order for order in orders}, dict(value["stock"]))


def write_world(world: World) -> JSON:
    """Return the shop as a task holds it."""
    return {"orders": [asdict(order) for order in world.orders.values()], "stock": world.stock}


def order_with(world: World, customer: str, item: str) -> Order:
    """Return the customer's order of an item; a customer has an item in one order only."""
    return next(order for order in world.orders_of(customer) if item in order.items)


def refusal(world: World, customer: str, request: Request) -> Reason | None:
    """Return why the rules forbid a request; None where they allow it."""
    needed = NEEDED_STATUS[request.kind]
    if order_with(world, customer, request.item).status != needed:
        return "not_pending" if needed == "pending" else "not_delivered"
    if request.kind == "exchange" and not world.stock[request.detail]:
        return "out_of_stock"
    return None


def apply(world: World, customer: str, request: Request) -> None:
    """Change the shop as a request asks for."""
    order = order_with(world, customer, request.item)
    if request.kind == "cancel":
        order.status = "cancelled"
    elif request.kind == "address":
        order.address = request.detail
    elif request.kind == "return":
        give_back(order, request.item)
    else:
        exchange(world, order, request.item, request.detail)


def give_back(order: Order, item: str) -> None:
    """Take an item out of an order."""
    order.items.remove(item)
    order.returned.append(item)


def exchange(world: World, order: Order, item: str, new_item: str) -> None:
    """Put an item from the stock in the place of another."""
    order.items[order.items.index(item)] = new_item
    order.returned.append(item)
    world.stock[new_item] -= 1


def expected_world(world: World, customer: str, requests: Iterable[Request]) -> World:
    """Return the shop as it should be when all requests have been dealt with by the rules."""
    after = copy.deepcopy(world)
    for request in requests:
        reason = refusal(world, customer, request)
        if reason is None:
            apply(after, customer, request)
        else:
            after.refusals[order_with(world, customer, request.item).id] = reason
    return after
