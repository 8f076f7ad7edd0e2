"""A chat template, run exactly as transformers runs it, but bounded, with a pinned clock, and faster.

The environment is transformers' own sandbox. Three things are added, none of which changes what a template prints:
attribute look-ups that templates are made of skip the sandbox's slow path, `tojson` of the tools is remembered, and
loops and repetition count against a budget, because a template is somebody else's code and must not hang a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from understudy.errors import RenderError

from .append_only import MARK_FUNCTION, PAID_FILTER, find_append_only_loop, with_marks
from .refusal import RefusalCode, TurnRefused

MAX_LOOP_STEPS = 2_000_000
MAX_REPEATED_CHARS = 1_000_000
MAX_RENDERED_CHARS = 256_000_000

_REMEMBERED_LEVELS = 4  # tools, a tool, its function, the parameters: what templates turn into JSON
_SIZED = (list, tuple, str, dict)
_ABSENT = object()
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


class _InlineLookups(CodeGenerator):
    """Compiles ``message.role`` and ``loop.index0`` to look-ups in place, for plain dicts and for loops.

    There they give what the sandbox's `getattr` gives, at a fraction of its cost; all else still goes through it.
    """

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        if node.attr in _DICT_ATTRIBUTES or not node.attr.isidentifier():
            super().visit_Getattr(node, frame)
            return
        name, key = self.temporary_identifier(), repr(node.attr)
        if node.attr in _SAFE_LOOP_ATTRIBUTES:
            found, kind = f"{name}.{node.attr}", "LoopContext"
        else:
            absent = f"environment.undefined(obj={name}, name={key})"
            found, kind = f"({name}[{key}] if {key} in {name} else {absent})", "dict"
        self.write(f"({found} if type({name} := ")
        self.visit(node.node, frame)
        self.write(f") is {kind} else environment.getattr({name}, {key}))")


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox with the same results and refusals, quicker look-ups, and a budget."""

    code_generator_class = _InlineLookups
    intercepted_binops = frozenset(["*", "**"])
    steps = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Let every loop pay for its steps: once for what it iterates over, or step by step where it may recurse."""
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                step = nodes.Call(nodes.Name("understudy_step", "load"), [], [], None, None)
                loop.body.insert(0, nodes.Output([step], lineno=loop.lineno))
            else:
                loop.iter = nodes.Filter(loop.iter, PAID_FILTER, [], [], None, None, lineno=loop.lineno)
        return tree

    def pay(self, num_steps: int) -> None:
        self.steps += num_steps
        if self.steps > MAX_LOOP_STEPS:
            raise _BudgetExceeded(f"more than {MAX_LOOP_STEPS:,} loop steps")

    def step(self) -> str:
        self.pay(1)
        return ""

    def paid(self, iterable: Any) -> Any:
        """Return what a loop iterates over after paying for it; what has no length pays as it goes."""
        if type(iterable) in _SIZED:
            self.pay(len(iterable))
            return iterable
        return self._paid_one_by_one(iterable)

    def _paid_one_by_one(self, iterable: Any) -> Iterator[Any]:
        for item in iterable:
            self.pay(1)
            yield item

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
                value = obj.get(attribute, _ABSENT)
                return self.undefined(obj=obj, name=attribute) if value is _ABSENT else value
        elif kind is str:
            if attribute in _SAFE_STRING_METHODS:
                return getattr(obj, attribute)
        elif kind is LoopContext:
            if attribute in _SAFE_LOOP_ATTRIBUTES:
                return getattr(obj, attribute)
        elif isinstance(obj, Namespace) and attribute[0] != "_":
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


@dataclass(frozen=True, slots=True)
class Timeline:
    """What an append-only template writes, in pieces.

    Args:
        text: everything up to the end of the last message.
        starts: where each message begins in it; None for a message that the template passes over.
        tail, generation_tail: what follows the messages without and with a generation prompt.
        min_context: the number of messages from which on the pieces are proven.
    """

    text: str
    starts: Sequence[int | None]
    tail: str
    generation_tail: str
    min_context: int

    def around(self, k: int) -> tuple[str, str] | None:
        """Return (prompt before message k, text through message k), or None where the pieces do not tell."""
        start = self.starts[k]
        if k < self.min_context or start is None:
            return None
        stop = self.starts[k + 1] if k + 1 < len(self.starts) else len(self.text)
        if stop is None:
            return None
        return self.text[:start] + self.generation_tail, self.text[:stop] + self.tail


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
        environment.globals["understudy_step"] = environment.step
        environment.filters[PAID_FILTER] = environment.paid
        self._tojson = environment.filters["tojson"]
        environment.filters["tojson"] = self._remembered_tojson
        self._remembered: dict[int, Any] = {}
        self._json_texts: dict[Any, str] = {}
        self._environment = environment
        try:
            self._template = environment.from_string(source)
            tree = environment.parse(source)
            self.undeclared = frozenset(meta.find_undeclared_variables(tree))
            self._append_only = find_append_only_loop(tree)
            if self._append_only is not None:
                environment.globals[MARK_FUNCTION] = self._mark
                self._marked_template = environment.from_string(with_marks(tree, self._append_only))
        except (TemplateError, RecursionError) as error:
            raise RenderError(f"the chat template cannot be compiled: {error}") from error
        self._written = 0
        self._marks: dict[int | None, int] = {}

    @property
    def reads_clock(self) -> bool:
        """True when what it prints depends on the date."""
        return "strftime_now" in self.source

    def remember(self, *values: Any) -> None:
        """Remember the JSON text of these values, and of what is close inside, until the next call of this method.

        The values must not change while they are remembered.
        """
        self._remembered.clear()
        self._json_texts.clear()
        level = list(values)
        for _ in range(_REMEMBERED_LEVELS):
            level = [value for value in level if isinstance(value, dict | list)]
            self._remembered.update((id(value), value) for value in level)
            level = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]

    def _remembered_tojson(self, value: Any, *args: Any, **options: Any) -> str:
        key = id(value) if not args and not options else (id(value), args, tuple(sorted(options.items())))
        text = self._json_texts.get(key)
        if text is None:
            text = str(self._tojson(value, *args, **options))
            if id(value) in self._remembered:
                self._json_texts[key] = text
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
        variables = self._variables(messages, tools, add_generation_prompt, arguments)
        return self._bounded(lambda: self._template.render(variables))

    def timeline(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        arguments: Mapping[str, Any] | None = None,
    ) -> Timeline | None:
        """Return the prompts of all turns of a conversation from two renders of the whole; None where that is not
        proven to give the same text as rendering each prompt, or where the template refuses the whole.
        """
        if self._append_only is None or len({id(message) for message in messages}) < len(messages):
            return None
        texts: list[str] = []
        try:
            for generation_prompt in (False, True):
                variables = self._variables(messages, tools, generation_prompt, arguments)
                texts.append(self._bounded(lambda given=variables: self._render_marked(given)))  # type: ignore[misc]
        except TurnRefused:
            return None
        end = self._marks.pop(None)
        starts = [self._marks.get(id(message)) for message in messages]
        timeline = Timeline(texts[0][:end], starts, texts[0][end:], texts[1][end:], self._append_only.min_context)
        self._verify(timeline, messages, tools, arguments)
        return timeline

    def _verify(self, timeline: Timeline, messages: Any, tools: Any, arguments: Mapping[str, Any] | None) -> None:
        """Hold the last prompt of a timeline against a render of its own."""
        for k in reversed(range(len(messages))):
            pieces = timeline.around(k)
            if pieces is not None:
                if pieces[0] != self.render(messages[:k], tools, add_generation_prompt=True, arguments=arguments):
                    raise RenderError("the chat template was taken for append-only and is not; please report it")
                return

    def _mark(self, message: Mapping[str, Any] | None) -> str:
        """Note where the output stands as a message's turn comes; None stands for the end of the loop."""
        self._marks[None if message is None else id(message)] = self._written
        return ""

    def _render_marked(self, variables: dict[str, Any]) -> str:
        self._marks, self._written = {}, 0
        pieces: list[str] = []
        for piece in self._marked_template.root_render_func(self._marked_template.new_context(variables)):
            pieces.append(piece)
            self._written += len(piece)
        return "".join(pieces)

    def _variables(
        self, messages: Any, tools: Any, add_generation_prompt: bool, arguments: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            **self.variables,
            **(arguments or {}),
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }

    def _bounded(self, render: Callable[[], str]) -> str:
        """Render within the budget, with everything that the template raises as a refusal."""
        self._environment.steps = 0
        try:
            text = render()
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
