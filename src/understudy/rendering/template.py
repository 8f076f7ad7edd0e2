"""A chat template, run exactly as transformers runs it, but bounded, with a pinned clock, and faster.

The environment is transformers' own sandbox, held to a budget (`template_sandbox`). What a template prints stays the
same; `tojson` of the tools is remembered, and templates that only append run once for all prompts of a conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import meta
from jinja2.exceptions import SecurityError

from understudy.errors import RenderError

from .append_only import MARK_FUNCTION, find_append_only_loop, with_marks
from .refusal import RefusalCode, TurnRefused
from .template_sandbox import BoundedSandbox, BudgetExceeded

MAX_SOURCE_CHARS = 200_000
MAX_UNPROVOKED_CHARS = 1_000_000
MAX_EXPANSION = 20
MAX_REMEMBERED_CHARS = 16_000_000


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
        if len(source) > MAX_SOURCE_CHARS:
            raise RenderError(f"the chat template has {len(source):,} characters, more than {MAX_SOURCE_CHARS:,}")
        environment = BoundedSandbox.take_over(template_environment())
        environment.globals["strftime_now"] = now.strftime
        self._tojson = environment.filters["tojson"]
        environment.filters["tojson"] = self._remembered_tojson
        self._json_texts: dict[tuple[int, str], tuple[Any, str]] = {}
        self._num_json_chars = 0
        self._environment = environment
        try:
            self._template = environment.from_string(source)
            tree = environment.parse(source)
            self.undeclared = frozenset(meta.find_undeclared_variables(tree))
            self._append_only = find_append_only_loop(tree)
            if self._append_only is not None:
                environment.globals[MARK_FUNCTION] = self._mark
                self._marked_template = environment.from_string(with_marks(tree, self._append_only))
        except Exception as error:  # jinja's own errors, and what Python says to the code: too deep, too long
            raise RenderError(f"the chat template cannot be compiled: {type(error).__name__}: {error}") from error
        self._written = 0
        self._marks: dict[int | None, int] = {}

    @property
    def reads_clock(self) -> bool:
        """True when what it prints depends on the date."""
        return "strftime_now" in self.source

    @property
    def reads_tools(self) -> bool:
        """False when what it prints is the same whatever tools there are."""
        return "tools" in self.undeclared

    def forget(self) -> None:
        """Forget the JSON texts of values. Between two calls of this method no value that is rendered may change."""
        self._json_texts.clear()
        self._num_json_chars = 0

    def _remembered_tojson(self, value: Any, *args: Any, **options: Any) -> str:
        """Tools and arguments are the same in all prompts of a conversation. A remembered value is kept alive, so that
        no other can get its id."""
        if type(value) not in (dict, list):
            return self._bounded_tojson(value, *args, **options)
        key = (id(value), repr((args, options)) if args or options else "")
        known = self._json_texts.get(key)
        if known is not None:
            return known[1]
        text = self._bounded_tojson(value, *args, **options)
        self._num_json_chars += len(text)
        if self._num_json_chars > MAX_REMEMBERED_CHARS:
            self.forget()
        self._json_texts[key] = (value, text)
        return text

    def _bounded_tojson(self, value: Any, *args: Any, **options: Any) -> str:
        sandbox = self._environment
        if args or options:  # they may ask for a wide indent
            sandbox.require_small(sandbox.size(value) * (1 + sum(map(sandbox.extent, [*args, *options.values()]))))
        return sandbox.made(self._tojson(value, *args, **options))  # type: ignore[no-any-return]

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
        return self._bounded(self._template.render, variables)

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
                texts.append(self._bounded(self._render_marked, variables))
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
        return self._environment.concat(pieces)

    def _variables(
        self, messages: Any, tools: Any, add_generation_prompt: bool, arguments: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "documents": None,
            **self.variables,
            **(arguments or {}),
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }

    def _bounded(self, render: Callable[[dict[str, Any]], str], variables: dict[str, Any]) -> str:
        """Render within the budget, with everything that the template raises as a refusal."""
        self._environment.work = 0
        try:
            text = render(variables)
        except (BudgetExceeded, OverflowError, MemoryError, RecursionError) as error:
            raise TurnRefused(RefusalCode.TEMPLATE_TOO_LONG, f"{type(error).__name__}: {error}") from None
        except SecurityError as error:
            raise TurnRefused(RefusalCode.TEMPLATE_RAISED, f"the sandbox forbids it: {error}") from None
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal of these messages
            reason = f"{type(error).__name__}: {error}"
            raise TurnRefused(RefusalCode.TEMPLATE_RAISED, re.sub(r"\s+", " ", reason)[:200]) from None
        if len(text) > MAX_UNPROVOKED_CHARS and len(text) > MAX_EXPANSION * len(json.dumps(variables, default=str)):
            reason = f"it writes {len(text):,} characters, more than {MAX_EXPANSION} times what it was given"
            raise TurnRefused(RefusalCode.TEMPLATE_TOO_LONG, reason)
        return text
