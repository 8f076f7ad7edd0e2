"""The tools environment: the service desk of a shop."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from understudy.environments.base import Observation
from understudy.environments.reading import Reading
from understudy.environments.relabelling import hindsight, states_of
from understudy.environments.tool_environment import ToolEnvironment, system, user
from understudy.environments.toolbox import Toolbox, ToolError
from understudy.errors import ConfigError, did_you_mean
from understudy.types import JSON, Episode, Message

from .expert import decide
from .hindsight import served_task
from .reading import read_conversation
from .tasks import ALL_KINDS, LEVELS, draw_task
from .world import Kind, Order, Reason, Request, World, exchange, expected_world, give_back, read_world


@dataclass(slots=True)
class ShopState:
    """A conversation under way.

    `told` counts the customer's messages so far. `found`, `read` and `checked` are what the agent has looked up:
    customers, orders, and items in stock. `kept_waiting` is False once something was changed that needed a yes first.
    """

    customer: str
    requests: tuple[Request, ...]
    says: tuple[str, ...]
    before: World
    world: World
    told: int = 1
    found: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    checked: set[str] = field(default_factory=set)
    kept_waiting: bool = True

    @property
    def heard_all(self) -> bool:
        """True when the customer has said all there is to say."""
        return self.told == len(self.says)


class Tools(ToolEnvironment[ShopState]):
    """A service desk: look things up, keep the rules, change or refuse, and tell the customer.

    The episode ends with the agent's first message when the customer has nothing more to say. It is a success when the
    shop is then exactly as the rules would have it: everything done that is allowed, everything else refused with the
    right reason, and nothing else touched.

    Args:
        level: 1 (one order, one wish: quick to learn) to 5 (several wishes, customers to be asked and to confirm).
        kinds: what customers want, of cancel, address, return, exchange; other than the level has it.
        num_orders: fewest and most orders of the customer, other than the level has it.
        num_requests: fewest and most wishes, other than the level has it.
        num_words: how many different names, items and order words shops are made of, other than all of them. What it
            means to look something up is learnt far sooner from few words, and then holds for the others.
        open_book: the records of the shop stand before the agent's rules as a table, and look-ups give rows of it. So
            nothing is hidden but what customers will say, and a world model can know what look-ups give.
        num_tasks, task_seed, max_steps: see `ToolEnvironment`.

    Raises:
        ConfigError: the level or a kind is unknown, a range is empty, or there are more wishes than orders or fewer
            words than a shop needs.
    """

    default_max_steps = 40

    def __init__(
        self,
        *,
        level: int = 2,
        kinds: Sequence[Kind] | None = None,
        num_orders: tuple[int, int] | None = None,
        num_requests: tuple[int, int] | None = None,
        num_words: int | None = None,
        open_book: bool = False,
        num_tasks: Mapping[str, int] | int | None = None,
        task_seed: int = 0,
        max_steps: int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level is {level!r}; it is one of {', '.join(map(str, LEVELS))}")
        self.difficulty = LEVELS[level]
        if kinds is not None:
            self.difficulty = replace(self.difficulty, kinds=_checked_kinds(kinds))
        if num_orders is not None:
            self.difficulty = replace(self.difficulty, num_orders=_checked_range("num_orders", num_orders, 10))
        if num_requests is not None:
            self.difficulty = replace(self.difficulty, num_requests=_checked_range("num_requests", num_requests, 5))
        most_orders, most_requests = self.difficulty.num_orders[1], self.difficulty.num_requests[1]
        if most_requests > most_orders:
            raise ConfigError(
                f"num_requests goes up to {most_requests} and num_orders up to {most_orders}, but each wish is for an "
                "order of its own; raise num_orders, or lower num_requests"
            )
        if num_words is not None:
            self.difficulty = replace(self.difficulty, num_words=num_words)
            if num_words < self.difficulty.fewest_words:
                raise ConfigError(
                    f"num_words is {num_words}, and the largest of these shops needs {self.difficulty.fewest_words} "
                    "different words of a kind; raise it, or lower num_orders"
                )
        self.open_book = open_book
        super().__init__(num_tasks=num_tasks, task_seed=task_seed, max_steps=max_steps)

    def make_toolbox(self) -> Toolbox:
        """Return the tools that the wishes can need."""
        changes: dict[Kind, Callable[..., str]] = {
            "cancel": self.cancel_order,
            "address": self.change_address,
            "return": self.return_item,
            "exchange": self.exchange_item,
        }
        kinds = self.difficulty.kinds
        look_ups: list[Callable[..., str]] = [self.find_customer]
        if not self.difficulty.lists_orders:
            look_ups.append(self.get_order)
        if "exchange" in kinds:
            look_ups.append(self.check_stock)
        return Toolbox(*look_ups, *(change for kind, change in changes.items() if kind in kinds), self.refuse)

    def draw_task(self, rng: random.Random) -> JSON:
        """Return a shop, a customer and the customer's wishes."""
        return draw_task(rng, self.difficulty)

    def begin(self, task: Any) -> tuple[ShopState, tuple[Message, ...]]:
        """Open with the rules and the customer's first message."""
        world = read_world(task["shop"])
        requests = tuple(Request(**request) for request in task["requests"])
        state = ShopState(task["customer"], requests, tuple(task["says"]), world, copy.deepcopy(world))
        rules = f"{self._records(world)}\n{self.rules()}" if self.open_book else self.rules()
        return state, (system(rules), user(state.says[0]))

    def rules(self) -> str:
        """Return the rules of the desk: those that the wishes can touch."""
        kinds = self.difficulty.kinds
        rules = ["You serve the customers of a shop.", "Look the customer up first."]
        if not self.difficulty.names_customer:
            rules.append("If you do not know the name, ask for it.")
        pending = [name for kind, name in (("cancel", "cancel"), ("address", "change the address of")) if kind in kinds]
        if pending:
            rules.append(f"You may {' or '.join(pending)} an order only while it is pending.")
        delivered = [kind for kind in ("return", "exchange") if kind in kinds]
        if delivered:
            rules.append(f"You may {' or '.join(delivered)} an item only when its order is delivered.")
        if "exchange" in kinds:
            rules.append("You may exchange an item only for one that is in stock.")
        if self.difficulty.must_confirm:
            rules.append("Before the first change, say what you are going to do and wait for a yes.")
        return " ".join([*rules, "Refuse everything else. When all is dealt with, tell the customer."])

    def _records(self, world: World) -> str:
        """Return all orders, and what is in stock, as far as the agent could look them up."""
        lines = []
        for order in world.orders.values():
            lines.append(_row(order) if self.difficulty.lists_orders else f"{_row(order)}, {order.address}")
        if "exchange" in self.difficulty.kinds:
            lines.append("In stock: " + ", ".join(f"{item} {count}" for item, count in world.stock.items()))
        return "\n".join(lines)

    def find_customer(self, name: str) -> str:
        """Find a customer's orders.

        Args:
            name: the customer's name
        """
        orders = self.state.world.orders_of(name)
        if not orders:
            raise ToolError(f"there is no customer {name!r}")
        self.state.found.add(name)
        if not self.difficulty.lists_orders:
            return "\n".join(order.id for order in orders)
        self.state.read.update(order.id for order in orders)
        if self.open_book:
            return "\n".join(_row(order) for order in orders)
        return "\n".join(f"{', '.join(order.items)}: {order.id}, {order.status}" for order in orders)

    def get_order(self, order: str) -> str:
        """Read an order.

        Args:
            order: the order's id
        """
        found = self._order(order)
        self.state.read.add(order)
        return f"items: {', '.join(found.items)}\nstatus: {found.status}\naddress: {found.address}"

    def check_stock(self, item: str) -> str:
        """Say how many of an item are in stock.

        Args:
            item: the item's name
        """
        self.state.checked.add(item)
        return str(self.state.world.stock.get(item, 0))

    def cancel_order(self, order: str) -> str:
        """Cancel an order.

        Args:
            order: the order's id
        """
        found = self._order(order)
        self._note_change()
        found.status = "cancelled"
        return "cancelled"

    def change_address(self, order: str, address: str) -> str:
        """Send an order to another address.

        Args:
            order: the order's id
            address: the new address
        """
        found = self._order(order)
        self._note_change()
        found.address = address
        return "changed"

    def return_item(self, order: str, item: str) -> str:
        """Take an item back.

        Args:
            order: the order's id
            item: the item's name
        """
        found = self._order(order, item)
        self._note_change()
        give_back(found, item)
        return "returned"

    def exchange_item(self, order: str, item: str, new_item: str) -> str:
        """Exchange an item for another.

        Args:
            order: the order's id
            item: the item's name
            new_item: the name of the item to send instead
        """
        found = self._order(order, item)
        if not self.state.world.stock.get(new_item):
            raise ToolError(f"{new_item!r} is not in stock")
        self._note_change()
        exchange(self.state.world, found, item, new_item)
        return "exchanged"

    def refuse(self, order: str, reason: Reason) -> str:
        """Write down that a request cannot be met.

        Args:
            order: the order's id
            reason: the rule that forbids it
        """
        self._order(order)
        self.state.world.refusals[order] = reason
        return "noted"

    def on_text(self, text: str) -> str | None:
        """Let the customer answer; a customer who has nothing more to say leaves."""
        state = self.state
        if state.heard_all:
            self.finish("customer_left")
            return None
        state.told += 1
        return state.says[state.told - 1]

    def is_success(self) -> bool:
        """Say whether the shop is as the rules would have it."""
        state = self.state
        return state.kept_waiting and state.world == expected_world(state.before, state.customer, state.requests)

    def read(self, task: JSON, messages: Sequence[Message]) -> Reading:
        """Read how the desk did by what its look-ups have shown; what cannot be told from them counts as failed."""
        return read_conversation(self, task, messages)

    def decide(self, observation: Observation) -> Message:
        """Return the expert's next action."""
        return decide(self.state, self.difficulty)

    def relabel(self, episode: Episode) -> list[Episode]:
        """Return the episode with the request that it would have served."""
        rng = random.Random(f"hindsight {episode.id}")
        task = served_task(states_of(self, episode)[-1], self.difficulty, rng)
        return hindsight(self, episode, [task] if task is not None else [])

    def _order(self, id: str, item: str | None = None) -> Order:
        order = self.state.world.orders.get(id)
        if order is None:
            raise ToolError(f"there is no order {id!r}")
        if item is not None and item not in order.items:
            raise ToolError(f"order {id} has no item {item!r}")
        return order

    def _note_change(self) -> None:
        if self.difficulty.must_confirm and not self.state.heard_all:
            self.state.kept_waiting = False


def _checked_kinds(kinds: Sequence[str]) -> tuple[Kind, ...]:
    for kind in kinds:
        if kind not in ALL_KINDS:
            raise ConfigError(f"unknown kind {kind!r}.{did_you_mean(kind, ALL_KINDS)} Known: {', '.join(ALL_KINDS)}")
    if not kinds:
        raise ConfigError(f"kinds is empty; name some of {', '.join(ALL_KINDS)}")
    return tuple(kind for kind in ALL_KINDS if kind in kinds)


def _checked_range(name: str, given: Sequence[int], most: int) -> tuple[int, int]:
    if len(given) != 2 or not 1 <= given[0] <= given[1] <= most:
        raise ConfigError(f"{name} is {list(given)}; give the fewest and the most, from 1 to {most}")
    return given[0], given[1]


def _row(order: Order) -> str:
    """Return an order as a row of an open book.

    A small model learns to find a row by a word if what follows from the word is the very next one.
    """
    return f"{order.customer} {', '.join(order.items)} {order.id} {order.status}"
