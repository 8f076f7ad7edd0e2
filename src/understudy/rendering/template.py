"""A chat template, run exactly as transformers runs it, but bounded, with a pinned clock, and faster.

The environment is transformers' own sandbox. Three things are added, none of which changes what a template prints:
attribute look-ups that templates are made of skip the sandbox's slow path, `tojson` of the tools is remembered, and
loops and repetition count against a budget, because a template is somebody else's code and must not hang a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from understudy.errors import RenderError

from .refusal import RefusalCode, TurnRefused

MAX_LOOP_STEPS = 2_000_000
MAX_REPEATED_CHARS = 1_000_000
MAX_RENDERED_CHARS = 256_000_000

_DICT_ATTRIBUTES = frozenset(dir(dict))
# fmt: off
_SAFE_STRING_METHODS = frozenset([
    "strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "upper", "lower", "title", "replace",
    "find", "rfind", "count", "join", "splitlines", "capitalize",
])
# fmt: on
_SAFE_LOOP_ATTRIBUTES = frozenset(
    ("index", "index0", "first", "last", "length", "previtem", "nextitem", "revindex", "revindex0")
)


class _BudgetExceeded(Exception):
    pass


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox with the same results and refusals, quicker look-ups, and a budget."""

    intercepted_binops = frozenset(["*", "**"])
    steps = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.Name("understudy_tick", "load"), [], [], None, None)
            loop.body.insert(0, nodes.Output([tick], lineno=loop.lineno))
        return tree

    def tick(self) -> str:
        self.steps += 1
        if self.steps > MAX_LOOP_STEPS:
            raise _BudgetExceeded(f"more than {MAX_LOOP_STEPS:,} loop steps")
        return ""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) <= 10**6 and abs(right) <= 64):
            raise _BudgetExceeded(f"{left} ** {right}")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    size = len(sequence) * times
                    if size > MAX_REPEATED_CHARS:
                        raise _BudgetExceeded(f"a text of {size:,} characters by repetition")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict:
            if attribute not in _DICT_ATTRIBUTES:
                try:
                    return obj[attribute]
                except KeyError:
                    return self.undefined(obj=obj, name=attribute)
        elif kind is str:
            if attribute in _SAFE_STRING_METHODS:
                return getattr(obj, attribute)
        elif kind is LoopContext:
            if attribute in _SAFE_LOOP_ATTRIBUTES:
                return getattr(obj, attribute)
        elif isinstance(obj, Namespace) and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the Jinja source.
        variables: what every call gets besides messages and tools (``bos_token``, ``eos_token``, …).
        clock: the local time that `strftime_now` sees, ISO 8601.

    Raises:
        RenderError: the source is not a valid template, or the clock not a valid time.
    """

    def __init__(self, source: str, variables: Mapping[str, Any], clock: str) -> None:
        from .huggingface import template_environment

        self.source = source
        self.variables = dict(variables)
        try:
            now = datetime.fromisoformat(clock)
        except ValueError as error:
            raise RenderError(f"clock {clock!r} is not an ISO 8601 time: {error}") from None
        environment = template_environment(BoundedSandbox)
        environment.globals["strftime_now"] = now.strftime
        environment.globals["understudy_tick"] = environment.tick
        self._tojson = environment.filters["tojson"]
        environment.filters["tojson"] = self._remembered_tojson
        self._remembered: dict[int, Any] = {}
        self._json_texts: dict[Any, str] = {}
        self._environment = environment
        try:
            self._template = environment.from_string(source)
            self.undeclared = frozenset(meta.find_undeclared_variables(environment.parse(source)))
        except (TemplateError, RecursionError) as error:
            raise RenderError(f"the chat template cannot be compiled: {error}") from error

    @property
    def reads_clock(self) -> bool:
        """True when what it prints depends on the date."""
        return "strftime_now" in self.source

    def remember(self, *values: Any) -> None:
        """Remember the JSON text of these values, and of what is inside them, until the next call of this method.

        The values must not change while they are remembered.
        """
        self._remembered.clear()
        self._json_texts.clear()
        stack = list(values)
        while stack:
            value = stack.pop()
            if isinstance(value, dict | list):
                self._remembered[id(value)] = value
                stack.extend(value.values() if isinstance(value, dict) else value)

    def _remembered_tojson(self, value: Any, *args: Any, **options: Any) -> str:
        if id(value) not in self._remembered:
            return str(self._tojson(value, *args, **options))
        key = (id(value), args, tuple(sorted(options.items())))
        text = self._json_texts.get(key)
        if text is None:
            text = self._json_texts[key] = str(self._tojson(value, *args, **options))
        return text

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text that the template writes for these prepared messages.

        Raises:
            TurnRefused: the template raised, or went beyond its budget.
        """
        self._environment.steps = 0
        try:
            text = self._template.render(
                {
                    **self.variables,
                    **(arguments or {}),
                    "messages": messages,
                    "tools": tools,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except (_BudgetExceeded, OverflowError, MemoryError, RecursionError) as error:
            raise TurnRefused(RefusalCode.TEMPLATE_TOO_LONG, f"{type(error).__name__}: {error}") from None
        except SecurityError as error:
            raise TurnRefused(RefusalCode.TEMPLATE_RAISED, f"the sandbox forbids it: {error}") from None
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal of these messages
            reason = f"{type(error).__name__}: {error}"
            raise TurnRefused(RefusalCode.TEMPLATE_RAISED, re.sub(r"\s+", " ", reason)[:200]) from None
        if len(text) > MAX_RENDERED_CHARS:
            raise TurnRefused(RefusalCode.TEMPLATE_TOO_LONG, f"it wrote {len(text):,} characters")
        return text
