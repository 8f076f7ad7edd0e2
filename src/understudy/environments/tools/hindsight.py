"""What a customer would have to have asked for, so that what the agent did is right."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from understudy.types import JSON

from .tasks import STREETS, Difficulty, draw_address, draw_script
from .world import Kind, Order, Request, World, refusal, write_world

if TYPE_CHECKING:
    from .environment import ShopState

_ADDRESS = re.compile(rf"[1-9]\d? ({'|'.join(STREETS)}) Street")


def served_task(state: ShopState, difficulty: Difficulty, rng: random.Random) -> JSON:
    """Return the task that a finished conversation would have served; None where there is none of this difficulty.

    The customer is the one whose orders were touched, and has been looked up with them. Whether the task is really
    solved is for the environment to say.
    """
    changed = [order for order in state.before.orders.values() if _is_touched(state.world, order)]
    customers = {order.customer for order in changed}
    if len(customers) != 1 or not all(order.id in state.read for order in changed):
        return None
    customer = customers.pop()
    requests = [request for order in changed for request in _requests(state.world, order, difficulty, rng)]
    fewest, most = difficulty.num_orders
    is_usual = fewest <= len(state.before.orders_of(customer)) <= most
    is_usual = is_usual and difficulty.num_requests[0] <= len(requests) <= difficulty.num_requests[1]
    if customer not in state.found or len(requests) != len(changed) or not is_usual:
        return None
    will_change = any(refusal(state.before, customer, request) is None for request in requests)
    will_confirm = difficulty.must_confirm and will_change
    return {
        "customer": customer,
        "requests": [asdict(request) for request in requests],
        "says": draw_script(rng, customer, requests, difficulty, will_confirm=will_confirm),
        "shop": write_world(state.before),
    }


def _is_touched(world: World, before: Order) -> bool:
    return before.id in world.refusals or world.orders[before.id] != before


def _requests(world: World, before: Order, difficulty: Difficulty, rng: random.Random) -> Iterator[Request]:
    """Yield what would ask for each of the things that were done to an order."""
    now, item = world.orders[before.id], rng.choice(before.items)
    if now.status != before.status:
        yield Request("cancel", item)
    if now.address != before.address and _ADDRESS.fullmatch(now.address):
        yield Request("address", item, now.address)
    new = [name for name in now.items if name not in before.items]
    for gone in now.returned[len(before.returned) :]:
        yield Request("exchange", gone, new.pop(0)) if new else Request("return", gone)
    if before.id in world.refusals:
        yield from _refused(world, before, item, difficulty, rng)


def _refused(world: World, order: Order, item: str, difficulty: Difficulty, rng: random.Random) -> Iterator[Request]:
    """Yield one request that is to be refused for the reason that was written down, where there is any."""
    reason = world.refusals[order.id]
    kinds: dict[str, tuple[Kind, ...]] = {
        "not_pending": ("cancel", "address"),
        "not_delivered": ("return", "exchange"),
        "out_of_stock": ("exchange",),
    }
    possible = [kind for kind in kinds[reason] if kind in difficulty.kinds]
    kind = rng.choice(possible) if possible else None
    if kind in ("cancel", "return"):
        yield Request(kind, item)
    elif kind == "address":
        yield Request(kind, item, draw_address(rng))
    elif kind == "exchange":
        others = [name for name, count in world.stock.items() if bool(count) == (reason == "not_delivered")]
        if others:
            yield Request(kind, item, rng.choice(others))
