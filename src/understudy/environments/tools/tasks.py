"""Random shops and random wishes, from easy to hard."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

from understudy.types import JSON

from .world import NEEDED_STATUS, Kind, Order, Request, Status, World, refusal, write_world

# fmt: off
NAMES = (
    "Ada", "Amir", "Anna", "Ben", "Bo", "Carl", "Cleo", "Dan", "Dora", "Eli", "Ella", "Emma", "Erik", "Eva", "Finn",
    "Fred", "Gina", "Greta", "Hana", "Hugo", "Ida", "Igor", "Ines", "Ivan", "Jack", "Jana", "Jon", "Kim", "Kira",
    "Lars", "Lea", "Leo", "Lisa", "Luis", "Mara", "Max", "Mia", "Mona", "Nils", "Nina", "Nora", "Olga", "Omar", "Otto",
    "Paul", "Pia", "Rita", "Rosa", "Sam", "Sara", "Sven", "Tara", "Theo", "Tom", "Uma", "Vera", "Will", "Yara", "Yves",
    "Zoe",
)
ITEMS = (
    "lamp", "chair", "desk", "sofa", "rug", "clock", "mirror", "vase", "kettle", "toaster", "pan", "knife", "plate",
    "bowl", "mug", "spoon", "towel", "pillow", "blanket", "curtain", "shelf", "stool", "bench", "bed", "tent", "bag",
    "coat", "scarf", "hat", "belt", "boots", "gloves", "phone", "tablet", "camera", "printer", "radio", "speaker",
    "keyboard", "mouse", "drone", "watch", "guitar", "piano", "drum", "violin", "book", "puzzle", "kite", "ball",
    "racket", "helmet", "bike", "scooter", "skates", "easel", "brush", "candle", "basket", "ladder",
)
ORDER_WORDS = (
    "falcon", "otter", "maple", "cedar", "amber", "coral", "ember", "frost", "grove", "haven", "ivory", "jade",
    "karma", "lemon", "mango", "nova", "ocean", "pearl", "quartz", "river", "sable", "tiger", "ultra", "velvet",
    "willow", "xenon", "yacht", "zebra", "acorn", "bison", "cobra", "delta", "eagle", "fjord", "gecko", "heron",
    "iris", "jaguar", "koala", "lotus", "moose", "ninja", "orchid", "panda", "quail", "raven", "salmon", "topaz",
    "umber", "viper", "walnut", "yodel", "zinc", "atlas", "birch", "comet", "dune", "elm", "fern", "garnet", "hazel",
    "indigo", "juniper", "kelp", "lynx", "mocha", "nickel", "olive", "plume", "robin", "sierra", "tulip", "violet",
    "wren", "yarrow", "zephyr", "aspen", "basil", "clover", "daisy",
)
STREETS = ("Oak", "Pine", "Lake", "Hill", "Park", "Mill", "Church", "Station", "River", "Garden", "Market", "Castle")
# fmt: on

NUM_STOCKED = 8
"""Items of which there are some in stock. No order has them."""

WISHES: dict[Kind, tuple[str, ...]] = {
    "cancel": (
        "please cancel my order of the {item}",
        "I do not need the {item} any more, cancel it please",
        "I ordered the {item} by mistake and want to cancel it",
        "can you cancel the order with the {item}?",
    ),
    "address": (
        "please send the {item} to {detail} instead",
        "the {item} should go to {detail}",
        "I moved: the new address for the {item} is {detail}",
    ),
    "return": (
        "I want to return the {item}",
        "the {item} does not suit me, I want to give it back",
        "please take the {item} back",
    ),
    "exchange": (
        "I want to exchange the {item} for the {detail}",
        "please swap the {item} for the {detail}",
        "I would rather have the {detail} than the {item}",
    ),
}
GREETINGS = ("Hi", "Hello", "Good day", "Hey")
NAMING = ("my name is {name}", "I am {name}", "this is {name}", "{name} here")
CONFIRMED = ("Yes, please.", "Yes, that is right.", "Yes, go ahead.")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard tasks are.

    Args:
        kinds: what customers may want.
        num_orders, num_items, num_requests: fewest and most orders of the customer, items of an order, and wishes.
        lists_orders: looking a customer up lists the orders whole, so they need not be read one by one.
        names_customer: customers say their names at once; otherwise they have to be asked.
        must_confirm: before the first change, the agent has to say what it will do and get a yes.
        num_others: orders of other customers in the shop.
        digit_ids: orders are numbers such as 4821937 and not words.
        num_words: how many different names, items and order words shops are made of; None for all there are.
    """

    kinds: tuple[Kind, ...] = ("cancel",)
    num_orders: tuple[int, int] = (1, 1)
    num_items: tuple[int, int] = (1, 1)
    num_requests: tuple[int, int] = (1, 1)
    lists_orders: bool = True
    names_customer: bool = True
    must_confirm: bool = False
    num_others: int = 2
    digit_ids: bool = False
    num_words: int | None = None

    @property
    def fewest_words(self) -> int:
        """How many different words of a kind the largest shop needs."""
        num_orders = max(*self.num_orders, self.num_requests[0])
        num_items = (num_orders + self.num_others) * self.num_items[1] + NUM_STOCKED * ("exchange" in self.kinds)
        return max(1 + self.num_others, num_orders + self.num_others, num_items)


ALL_KINDS: tuple[Kind, ...] = ("cancel", "address", "return", "exchange")

LEVELS = {
    1: Difficulty(),
    2: Difficulty(num_orders=(2, 3)),
    3: Difficulty(("cancel", "address", "return"), (1, 3), (1, 2), lists_orders=False, num_others=3),
    4: Difficulty(ALL_KINDS, (2, 3), (1, 2), (1, 2), lists_orders=False, names_customer=False, num_others=3),
    5: Difficulty(
        ALL_KINDS, (2, 4), (1, 3), (2, 3), lists_orders=False, names_customer=False, must_confirm=True, num_others=6,
        digit_ids=True,
    ),
}  # fmt: skip


def draw_task(rng: random.Random, difficulty: Difficulty) -> JSON:
    """Return a task: the shop, the customer, the wishes, and what the customer will say, in order."""
    customer, *others = rng.sample(NAMES[: difficulty.num_words], 1 + difficulty.num_others)
    num_orders = max(rng.randint(*difficulty.num_orders), difficulty.num_requests[0])
    ids = _draw_ids(rng, num_orders + len(others), difficulty)
    goods = ITEMS[: difficulty.num_words]
    items = rng.sample(goods, len(goods))
    orders = [_draw_order(rng, ids.pop(), customer, items, difficulty) for _ in range(num_orders)]
    num_requests = min(rng.randint(*difficulty.num_requests), num_orders)
    requests = []
    stock = dict.fromkeys(items[-NUM_STOCKED:], 1)
    for order in rng.sample(orders, num_requests):
        request = _draw_request(rng, order, stock, difficulty)
        order.status = _draw_status(rng, request)
        requests.append(request)
    orders += [_draw_order(rng, ids.pop(), other, items, difficulty) for other in others]
    rng.shuffle(orders)
    wanted = {request.detail: stock[request.detail] for request in requests if request.kind == "exchange"}
    world = World({order.id: order for order in orders}, wanted)
    will_change = any(refusal(world, customer, request) is None for request in requests)
    return {
        "customer": customer,
        "requests": [asdict(request) for request in requests],
        "says": draw_script(rng, customer, requests, difficulty, will_confirm=difficulty.must_confirm and will_change),
        "shop": write_world(world),
    }


def _draw_ids(rng: random.Random, count: int, difficulty: Difficulty) -> list[str]:
    if difficulty.digit_ids:
        return [str(number) for number in rng.sample(range(10**6, 10**7), count)]
    return rng.sample(ORDER_WORDS[: difficulty.num_words], count)


def _draw_order(rng: random.Random, id: str, customer: str, items: list[str], difficulty: Difficulty) -> Order:
    chosen = [items.pop(0) for _ in range(rng.randint(*difficulty.num_items))]
    return Order(id, customer, rng.choice(("pending", "shipped", "delivered")), chosen, draw_address(rng))


def _draw_request(rng: random.Random, order: Order, stock: dict[str, int], difficulty: Difficulty) -> Request:
    kind, item = rng.choice(difficulty.kinds), rng.choice(order.items)
    if kind == "address":
        return Request(kind, item, draw_address(rng))
    if kind == "exchange":
        new_item = rng.choice([name for name, count in stock.items() if count == 1])
        stock[new_item] = rng.choice((0, 2, 5))
        return Request(kind, item, new_item)
    return Request(kind, item)


def _draw_status(rng: random.Random, request: Request) -> Status:
    """Return a status that allows the request half of the time."""
    needed = NEEDED_STATUS[request.kind]
    if rng.random() < 0.5:
        return needed
    forbidding: list[Status] = [status for status in ("pending", "shipped", "delivered") if status != needed]
    return rng.choice(forbidding)


def draw_address(rng: random.Random) -> str:
    """Return a street and a number in it."""
    return f"{rng.randint(1, 99)} {rng.choice(STREETS)} Street"


def draw_script(
    rng: random.Random, customer: str, requests: list[Request], difficulty: Difficulty, *, will_confirm: bool
) -> list[str]:
    """Return what the customer says: the first message, then one answer to each message of the agent."""
    naming = rng.choice(NAMING).format(name=customer)
    wishes = [rng.choice(WISHES[request.kind]).format(item=request.item, detail=request.detail) for request in requests]
    wish = _sentence("; and ".join(wishes))
    greeting = rng.choice(GREETINGS)
    script = [f"{greeting}, {naming}. {wish}"] if difficulty.names_customer else [f"{greeting}. {wish}"]
    if not difficulty.names_customer:
        script.append(_sentence(naming))
    if will_confirm:
        script.append(rng.choice(CONFIRMED))
    return script


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")
