"""The expert of the service desk: whatever the state of the conversation, the next right thing to do.

It acts on what it has looked up. It reads an order before it changes it, and what is in stock before it promises it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from understudy.environments.base import ExpertStuck
from understudy.environments.tool_environment import calls, says
from understudy.types import Message

from .tasks import Difficulty
from .world import Order, Reason, Request, order_with, refusal

if TYPE_CHECKING:
    from .environment import ShopState


def decide(state: ShopState, difficulty: Difficulty) -> Message:
    """Return the next action.

    Raises:
        ExpertStuck: what is due can no longer be done.
    """
    knows_name = difficulty.names_customer or state.told > 1
    if not knows_name:
        return says("What is your name, please?")
    if state.customer not in state.found:
        return calls("find_customer", name=state.customer)
    for request in state.requests:
        order = order_with(state.before, state.customer, request.item)
        for look_up in _look_ups(state, request, order):
            return look_up
        reason = refusal(state.before, state.customer, request)
        if _is_done(state, request, order, reason):
            continue
        if reason is not None:
            return calls("refuse", order=order.id, reason=reason)
        if difficulty.must_confirm and not state.heard_all:
            return says("I can do that now. Shall I go ahead?")
        if request.kind == "exchange" and not state.world.stock[request.detail]:
            raise ExpertStuck(f"the {request.detail} went to somebody else")
        return _change(request, order)
    return says(_farewell(state))


def _look_ups(state: ShopState, request: Request, order: Order) -> Iterator[Message]:
    """Yield what has to be looked up before the request can be judged: orders up to the right one, and the stock."""
    for candidate in state.before.orders_of(state.customer):
        if candidate.id not in state.read:
            yield calls("get_order", order=candidate.id)
        if candidate.id == order.id:
            break
    if request.kind == "exchange" and order.status == "delivered" and request.detail not in state.checked:
        yield calls("check_stock", item=request.detail)


def _is_done(state: ShopState, request: Request, order: Order, reason: Reason | None) -> bool:
    """Say whether the request has been dealt with."""
    if reason is not None:
        return state.world.refusals.get(order.id) == reason
    now = state.world.orders[order.id]
    if request.kind == "cancel":
        return now.status == "cancelled"
    return now.address == request.detail if request.kind == "address" else request.item in now.returned


def _change(request: Request, order: Order) -> Message:
    if request.kind == "cancel":
        return calls("cancel_order", order=order.id)
    if request.kind == "address":
        return calls("change_address", order=order.id, address=request.detail)
    if request.kind == "return":
        return calls("return_item", order=order.id, item=request.item)
    return calls("exchange_item", order=order.id, item=request.item, new_item=request.detail)


def _farewell(state: ShopState) -> str:
    num_refused = sum(refusal(state.before, state.customer, request) is not None for request in state.requests)
    if not num_refused:
        return "It is done."
    return "I am sorry, that is not possible." if num_refused == len(state.requests) else "I did what is possible."
