"""transformers' template sandbox with a budget: the same results and refusals, at a bounded cost.

A chat template is somebody else's program, and must neither hang a run nor fill its memory. So all that can make one
run long or its values large is paid for, in *work*: one unit for each character that is made, `ITEM_WORK` for each item
of a container, `NODE_WORK` for each node of the syntax tree that a loop, macro or block runs. What could grow by more
than a few times in one step (``'x'.ljust(10**9)``, ``replace``, ``join``, formats) is measured before it is done.
Nothing here depends on time, so a template is refused everywhere or nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, MappingView
from functools import wraps
from types import BuiltinMethodType, GeneratorType
from typing import Any

from jinja2.environment import Environment
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from .template_code import LOOP_ATTRIBUTES, NAMESPACE_VALUES, PAID_LOOP_FILTER, PAY_FILTER, BoundedCode, let_bodies_pay

MAX_WORK = 100_000_000
"""Work of one render: about five seconds, and at most some hundred MB."""

MAX_SIZE = 8_000_000
"""Size of one value that a template makes."""

ITEM_WORK = 16
MAX_INTEGER_BITS = 4_096
_MAX_FORMAT_DIGITS = 3

_SIZED = (list, tuple, str, dict)
_SCALARS = frozenset([int, float, bool, type(None), Undefined])
_ABSENT = object()
_get_attribute = object.__getattribute__
_DICT_ATTRIBUTES = frozenset(dir(dict))
# fmt: off
_PLAIN_METHODS = frozenset([
    "strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "upper", "lower", "title", "find",
    "rfind", "count", "splitlines", "capitalize",
])
"""Methods of texts whose result is no larger than the text."""
_GROWING_METHODS = frozenset(["replace", "join", "ljust", "rjust", "center", "zfill", "expandtabs"])
_FORBIDDEN_ATTRIBUTES = frozenset(["encode", "translate", "maketrans", "to_bytes", "from_bytes"])
"""Methods that chat templates have no use for and whose results are not measured here."""
_LAZY_FILTERS = frozenset([
    "default", "d", "length", "count", "first", "last", "map", "select", "reject", "selectattr", "rejectattr", "items",
    "attr", "safe", "tojson",
])
_GROWING_FILTERS = frozenset(["center", "indent", "batch", "slice", "join"])
_SLOW_OR_RANDOM_FILTERS = frozenset(["pprint", "random", "urlize", "wordwrap", "xmlattr"])
_COMPARING_TESTS = frozenset([
    "in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">=",
])
# fmt: on
_FORMAT_HAZARD = re.compile(rf"\*|\d{{{_MAX_FORMAT_DIGITS + 1}}}|\{{[^{{}}]*\{{")


class BudgetExceeded(Exception):
    """A template goes beyond what one render may cost."""


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox with the same results and refusals, quicker look-ups, and a budget."""

    code_generator_class = BoundedCode
    intercepted_binops = frozenset(["*", "**", "%"])
    work = 0

    @classmethod
    def take_over(cls, environment: Environment) -> BoundedSandbox:
        """Make an environment of transformers' own, which nothing else uses, one of this class."""
        environment.__class__ = cls
        assert isinstance(environment, cls)
        environment.optimized = False  # folding constants takes cubic time in how deep an expression is
        environment.globals.pop("lipsum", None)
        for name in _SLOW_OR_RANDOM_FILTERS:
            environment.filters.pop(name, None)
        for name in environment.filters.keys() - _LAZY_FILTERS:
            environment.filters[name] = environment._paying_filter(name, environment.filters[name])
        for name in _COMPARING_TESTS & environment.tests.keys():
            environment.tests[name] = environment._paying_test(environment.tests[name])
        environment.filters[PAID_LOOP_FILTER] = environment.paid_loop
        environment.filters[PAY_FILTER] = environment.pay
        return environment

    def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
        return let_bodies_pay(super()._parse(source, name, filename))

    # The budget.

    def pay(self, work: int) -> None:
        self.work += work
        if self.work > MAX_WORK:
            raise BudgetExceeded("it loops or grows without end")

    def paid_loop(self, iterable: Any, work: int) -> Any:
        """Return what a loop iterates over after paying for all its steps; what has no length pays as it goes."""
        if type(iterable) in _SIZED:
            self.pay(work * (1 + len(iterable)))
            return iterable
        return self._paid_one_by_one(iterable, work)

    def _paid_one_by_one(self, iterable: Iterable[Any], work: int) -> Iterator[Any]:
        for item in iterable:
            self.pay(work)
            yield item

    def made(self, value: Any) -> Any:
        """Pay for a value that the template has just made, and return it."""
        if type(value) is not str:
            self.pay(self.size(value))
        else:
            size = len(value)
            self.work += size
            if size > MAX_SIZE or self.work > MAX_WORK:
                raise BudgetExceeded(f"it makes a text of {size:,} characters")
        return value

    def sliced(self, value: Any) -> Any:
        """Pay for a slice: a copy of what was there already."""
        if isinstance(value, str | list | tuple):
            self.pay(len(value) if isinstance(value, str) else ITEM_WORK * len(value))
        return value

    def compared(self, value: Any) -> Any:
        """Pay for comparing with a value or searching it."""
        kind = type(value)
        if kind is str:
            self.pay(len(value) >> 4)
        elif kind not in _SCALARS:
            try:
                self.pay(len("".join(value)))  # quick to tell that there are only texts
            except TypeError:
                self.pay(self.size(value))
        return value

    def joined(self, parts: tuple[Any, ...]) -> str:
        """Return ``a ~ b ~ …``."""
        texts = [part if type(part) is str else self.text(part) for part in parts]
        size = sum(map(len, texts))
        self.work += size
        if size > MAX_SIZE or self.work > MAX_WORK:
            raise BudgetExceeded(f"it makes a text of {size:,} characters")
        return "".join(texts)

    def text(self, value: Any) -> str:
        """Return ``str(value)``, which for containers is as long as all that they hold."""
        if type(value) not in _SCALARS:
            self.pay(self.size(value))
        return str(value)

    def concat(self, pieces: Iterable[str]) -> str:
        """Join what a template, macro or block has written."""
        pieces = list(pieces)
        self.work += sum(map(len, pieces))
        if self.work > MAX_WORK:
            raise BudgetExceeded("it writes without end")
        return "".join(pieces)

    def require_small(self, size: int) -> None:
        if size > MAX_SIZE:
            raise BudgetExceeded(f"it makes a value of size {size:,}")

    def size(self, value: Any) -> int:
        """Return the size of a value with all that it holds, shared parts counted each time they are met.

        An item counts more the deeper it lies, so that the size bounds indented JSON too.

        Raises:
            BudgetExceeded: it is larger than one value may be.
        """
        total, depth, level = 0, 0, [value]
        while level:
            below: list[Any] = []
            for item in level:
                kind = type(item)
                if kind is str or isinstance(item, str):
                    total += len(item)
                elif kind not in _SCALARS:
                    held = _held(item)
                    total += (ITEM_WORK + depth) * (1 + len(held))
                    self.require_small(total)  # before the list of items grows
                    below.extend(held)
            level, depth = below, depth + 1
        self.require_small(total)
        return total

    # Operators, attributes and calls.

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            self._require_small_format(left, right)
        elif operator in ("*", "**"):
            self._require_small_product(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def _require_small_product(self, operator: str, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            times = max(0, right) if operator == "**" else 1
            bits = left.bit_length() * times if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_INTEGER_BITS:
                raise BudgetExceeded(f"an integer of {bits:,} bits")
        for value, times in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(times, int):
                self.require_small(self.size(value) * max(0, times))

    def _require_small_format(self, template: str, arguments: Any) -> None:
        if _FORMAT_HAZARD.search(template):
            raise BudgetExceeded(f"the format {template[:60]!r} asks for a width")
        num_fields = template.count("%") + template.count("{")
        self.require_small(len(template) + num_fields * (10**_MAX_FORMAT_DIGITS + self.size(arguments)))

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict:
            if attribute not in _DICT_ATTRIBUTES:
                value = obj.get(attribute, _ABSENT)
                return self.undefined(obj=obj, name=attribute) if value is _ABSENT else value
        elif kind is str:
            if attribute in _PLAIN_METHODS:
                return getattr(obj, attribute)
        elif kind is LoopContext:
            if attribute in LOOP_ATTRIBUTES:
                return getattr(obj, attribute)
        elif isinstance(obj, Namespace) and attribute[:1] != "_":
            value = _get_attribute(obj, NAMESPACE_VALUES).get(attribute, _ABSENT)
            return self.undefined(obj=obj, name=attribute) if value is _ABSENT else value
        found = super().getattr(obj, attribute)
        is_growing = isinstance(obj, str) and attribute in _GROWING_METHODS
        return self._measured_method(obj, attribute, found) if is_growing else found

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _FORBIDDEN_ATTRIBUTES and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None
        given: Callable[..., str] = formatted

        def measured(*args: Any, **options: Any) -> str:
            self._require_small_format(value.__self__, [args, options])
            return given(*args, **options)

        return measured

    def _measured_method(self, text: str, name: str, method: Callable[..., str]) -> Callable[..., str]:
        def measured(*args: Any, **options: Any) -> str:
            if name == "join" and args:
                args = (list(args[0]), *args[1:])  # what can be read only once
            self.require_small(_grown_length(text, name, [*args, *options.values()], self.size))
            return method(*args, **options)

        return measured

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        kind = type(__obj)
        if kind is Macro:
            if __obj.catch_varargs or __obj.catch_kwargs:
                __self.made([args, kwargs])  # of which the macro makes containers
        elif kind is not BuiltinMethodType:
            return __self.made(super().call(__context, __obj, *args, **kwargs))
        # A macro, and a method of a text, list or dict, need nothing of the context and cannot be marked unsafe.
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        if kind is Macro:
            return __obj(__context.eval_ctx, *args, **kwargs)
        value = __obj(*args, **kwargs)
        owner, made = __obj.__self__, type(value)
        work = len(owner) >> 2 if type(owner) is str else 0
        if made is str or made is list:
            work += len(value) if made is str else ITEM_WORK * len(value)
        __self.pay(work)
        return value

    # Filters and tests.

    def _paying_filter(self, name: str, given: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that pays for what it takes in and for what it makes."""
        first = 1 if hasattr(given, "jinja_pass_arg") else 0

        @wraps(given)
        def paying(*args: Any, **options: Any) -> Any:
            value = args[first] if len(args) > first else ""
            if isinstance(value, GeneratorType):
                value = list(self._paid_one_by_one(value, ITEM_WORK))
                args = (*args[:first], value, *args[first + 1 :])
            self._require_small_result(name, value, [*args[first + 1 :], *options.values()])
            self.pay(self.size(value))
            return self.made(given(*args, **options))

        @wraps(given)
        def paying_quickly(value: Any = "", *args: Any, **options: Any) -> Any:
            if type(value) is str and not args and not options:
                return self.made(given(value))  # with no argument to multiply it, a text grows by little
            return paying(value, *args, **options)

        return paying if first else paying_quickly

    def _require_small_result(self, name: str, value: Any, arguments: list[Any]) -> None:
        if name in _GROWING_FILTERS:
            # At most as many copies of the arguments as the value has characters or items.
            self.require_small((1 + self.size(value)) * (1 + sum(map(self.extent, arguments))))
        elif name == "replace":
            self.require_small(_grown_length(str(value), name, arguments, self.size))
        elif name == "format":
            self._require_small_format(str(value), arguments)
        elif name == "round" and any(self.extent(argument) > 300 for argument in arguments):
            raise BudgetExceeded("it rounds to more than 300 digits")
        elif name == "sum" and not all(isinstance(argument, str | int | float) for argument in arguments):
            raise BudgetExceeded("it adds up containers, which takes quadratic time")

    def extent(self, argument: Any) -> int:
        """Return how much an argument can add to each piece of what a filter makes."""
        if isinstance(argument, int):
            return abs(argument)
        if isinstance(argument, list | tuple):
            return sum(len(item) for item in argument if isinstance(item, str))
        return self.size(argument)

    def _paying_test(self, given: Any) -> Any:
        @wraps(given)
        def paying(value: Any, other: Any) -> Any:
            return given(value, self.compared(other))

        return paying


def _held(value: Any) -> Collection[Any]:
    """Return what a container holds; nothing for anything else."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Namespace):
        value = _get_attribute(value, NAMESPACE_VALUES)
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    held: Any = value if isinstance(value, MappingView | set | frozenset) else ()
    return list(held)


def _grown_length(text: str, method: str, arguments: list[Any], size: Callable[[Any], int]) -> int:
    """Return an upper bound of the length of what a method of `text` will make; 0 for arguments that it will refuse."""
    first, second = [*arguments, None, None][:2]
    if method == "join":
        return size(first) + len(text) * len(first)
    if method == "replace":
        if not isinstance(first, str) or not isinstance(second, str):
            return 0
        return len(text) + max(0, len(second) - len(first)) * text.count(first)
    width = first if isinstance(first, int) else 8 if method == "expandtabs" else 0
    return width * (text.count("\t") if method == "expandtabs" else 1)
