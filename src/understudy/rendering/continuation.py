"""From messages to the text of one turn: the prompt that a server would send, and what the model is to write after it.

The prompt is the template over the messages before the turn, with a generation prompt. The target is what the template
writes for the turn *after that very prompt*. Often the template's text with the turn begins with the prompt and the
target is the rest (`direct`). Where it does not, a thinking flag may make it so, or the turn's own header in the
longer text shows where the turn begins (`header`), with a thinking block that the prompt has already closed or opened.
Whatever fits neither way is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .coverage import require_covered, split_reasoning
from .profile import ServerProfile
from .refusal import RefusalCode, TurnRefused
from .segments import SegmentTokenizer, common_prefix_length
from .stops import StopTokens
from .template import ChatTemplate, Timeline

Prepared = dict[str, Any]
"""A message as the template gets it."""

THINKING_FLAGS = ("enable_thinking", "thinking", "thinking_mode", "reasoning")
"""Names of the template variables by which models switch thinking per request."""

THINKING_BLOCKS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<think:opensource>", "</think:opensource>"),
)
"""How models' templates open and close reasoning."""

_PROBE = "qzotherq"


@dataclass(frozen=True, slots=True)
class Continuation:
    """The text of one turn. `how` says which way it was found, `arguments` which thinking flags were set for it."""

    prompt: str
    target: str
    how: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Header:
    """A generation prompt taken apart: the assistant header, and the thinking block that the prompt adds to it."""

    text: str
    block: tuple[str, str] | None
    closed: bool


class TurnWriter:
    """Write turns with one template, profile and set of stop tokens."""

    def __init__(
        self, template: ChatTemplate, profile: ServerProfile, stops: StopTokens, segments: SegmentTokenizer
    ) -> None:
        self._template = template
        self._profile = profile
        self._stops = stops
        self._segments = segments
        self._flags = [
            flag
            for flag in THINKING_FLAGS
            if profile.thinking == "auto" and flag in template.undeclared and flag not in profile.template_arguments
        ]

    def prompt(self, context: Sequence[Prepared], tools: Any, arguments: Mapping[str, Any] | None = None) -> str:
        """Return the server's prompt text after these messages."""
        return self._render(context, tools, True, arguments or {})

    def timeline(self, conversation: Sequence[Prepared], tools: Any) -> Timeline | None:
        """Return the prompts of all turns of a conversation at once, where the template allows it."""
        return self._template.timeline(conversation, tools, arguments=self._profile.template_arguments)

    def write(
        self, context: Sequence[Prepared], message: Prepared, tools: Any, known: tuple[str, str] | None = None
    ) -> Continuation:
        """Return the prompt after `context` and the target of `message`.

        Args:
            known: the prompt, and the text with the message, where a timeline has given them already.

        Raises:
            TurnRefused: there is no exact target; the code says why.
        """
        reasoning = message.get("reasoning_content") or split_reasoning(_text(message))[0]
        refusals: list[TurnRefused] = []
        if known is not None and known[1].startswith(known[0]):
            try:
                target = self._finish(context, message, tools, {}, known[1][len(known[0]) :])
                return Continuation(known[0], target, "direct", {})
            except TurnRefused:
                pass  # told again below, with every other way tried
        for way in (self._direct, self._anchored):
            for arguments in self._request_arguments(bool(reasoning.strip())):
                try:
                    found = way(context, message, tools, arguments)
                except TurnRefused as refused:
                    refusals.append(refused)
                    continue
                if found is not None:
                    return found
        # Every way starts from the prompt not being a prefix, so any other refusal says more.
        telling = [refused for refused in refusals if refused.code != RefusalCode.PROMPT_NOT_PREFIX]
        raise (telling or refusals)[0]

    def _request_arguments(self, has_reasoning: bool) -> Iterator[dict[str, Any]]:
        """Yield the thinking flags to try: none, then, where the template has some, those that suit the turn."""
        yield {}
        if self._flags:
            yield dict.fromkeys(self._flags, has_reasoning)

    def _render(
        self, messages: Sequence[Prepared], tools: Any, generation_prompt: bool, arguments: Mapping[str, Any]
    ) -> str:
        every = {**self._profile.template_arguments, **arguments}
        return self._template.render(messages, tools, add_generation_prompt=generation_prompt, arguments=every)

    def _direct(
        self, context: Sequence[Prepared], message: Prepared, tools: Any, arguments: dict[str, Any]
    ) -> Continuation:
        prompt = self._render(context, tools, True, arguments)
        full = self._render([*context, message], tools, False, arguments)
        if not full.startswith(prompt):
            at = common_prefix_length(prompt, full)
            reason = f"the server's prompt goes on {prompt[at : at + 60]!r} where the template writes the turn as"
            raise TurnRefused(RefusalCode.PROMPT_NOT_PREFIX, reason, full[at : at + 60])
        target = self._finish(context, message, tools, arguments, full[len(prompt) :])
        return Continuation(prompt, target, "direct", arguments)

    def _anchored(
        self, context: Sequence[Prepared], message: Prepared, tools: Any, arguments: dict[str, Any]
    ) -> Continuation | None:
        """Find the turn's header in the longer text and take what follows it; None where it cannot be told apart."""
        prompt = self._render(context, tools, True, arguments)
        full = self._render([*context, message], tools, False, arguments)
        header = self._header(context, tools, arguments, prompt)
        if not header.text:
            return None
        body_start = self._body_start(context, tools, arguments, full, header)
        if body_start is None:
            return None
        body = full[body_start:]
        if header.block is None:
            how = "header"
        elif header.closed:
            self._refuse_late_reasoning(message)
            body, how = _without_leading_block(body), "header after closed thinking"
        else:
            close = self._profile.think_close
            if close is None or header.block[1] in body:
                return None
            reasoning = message.get("reasoning_content") or split_reasoning(_text(message))[0]
            body, how = reasoning.strip("\n") + close + body, "header after opened thinking"
        return Continuation(prompt, self._finish(context, message, tools, arguments, body), how, arguments)

    def _header(self, context: Sequence[Prepared], tools: Any, arguments: dict[str, Any], prompt: str) -> _Header:
        """Take the generation prompt apart."""
        without = self._render(context, tools, False, arguments)
        if prompt.startswith(without) and len(prompt) > len(without):
            generation_prompt = prompt[len(without) :]
        else:
            pattern = self._segments.added_pattern
            starts = [match.start() for match in pattern.finditer(prompt)] if pattern else []
            generation_prompt = prompt[starts[-1] :] if starts else ""
        for block in THINKING_BLOCKS:
            opening, closing = block
            at = generation_prompt.rfind(opening)
            if at >= 0:
                return _Header(generation_prompt[:at].lstrip(), block, closing in generation_prompt[at:])
            if generation_prompt.rstrip().endswith(closing):
                return _Header(generation_prompt[: generation_prompt.rfind(closing)].lstrip(), block, True)
        return _Header(generation_prompt.lstrip(), None, False)

    def _body_start(
        self, context: Sequence[Prepared], tools: Any, arguments: dict[str, Any], full: str, header: _Header
    ) -> int | None:
        """Return where in `full` the turn begins, right after its header.

        The turn's own text begins at or after the first difference from a conversation that ends with another turn,
        so its header is the last one that ends at or before that.
        """
        try:
            probe: Prepared = {"role": "assistant", "content": _PROBE}
            other = self._render([*context, probe], tools, False, arguments)
        except TurnRefused:
            return None
        difference = common_prefix_length(other, full)
        at = full.rfind(header.text, 0, difference)
        if at < 0:
            return None
        start = at + len(header.text)
        return start if self._belongs(context[-1], full, at, start, difference) else None

    def _belongs(self, previous: Prepared, full: str, at: int, start: int, difference: int) -> bool:
        """True when the header at `at` is the turn's own: the message before it stands between it and any earlier one.

        Where the message before is an assistant's, or has no text, only thinking may stand between header and turn.
        """
        between = full[start:difference].strip()
        text = _text(previous).strip()
        if not text or previous["role"] == "assistant":
            return not between or between.startswith(tuple(tag for block in THINKING_BLOCKS for tag in block))
        header_before = full.rfind(full[at:start], 0, at)
        for tail in (text[-40:], _json_escaped(text[-40:])):
            if tail in between:
                return False
            found = full.rfind(tail, 0, at)
            # The message may hold the header's text itself, so what counts is where the message ends.
            if found >= 0 and found + len(tail) > header_before:
                return True
        return False

    def _refuse_late_reasoning(self, message: Prepared) -> None:
        reasoning = message.get("reasoning_content") or split_reasoning(_text(message))[0]
        if reasoning.strip():
            reason = "the prompt has closed thinking, the turn reasons"
            raise TurnRefused(RefusalCode.REASONING_AFTER_CLOSED_THINK, reason, reasoning.strip()[:60])

    def _finish(
        self, context: Sequence[Prepared], message: Prepared, tools: Any, arguments: dict[str, Any], body: str
    ) -> str:
        """Cut the body at its stop token and check that it holds the whole turn and no stop token inside."""
        target = self._stops.cut(body)
        if target is None:
            opener = self._closing_opener(context, message, tools, arguments, body)
            if opener is None:
                raise TurnRefused(RefusalCode.NO_STOP, "no stop token ends the turn", body[-60:])
            target = body + opener
        require_covered(message, target)
        inside = [span for span in self._stops.find(target) if span[1] < len(target)]
        if inside:
            start = inside[0][0]
            reason = "a stop token stands inside the turn"
            raise TurnRefused(RefusalCode.STOP_INSIDE_TURN, reason, target[max(0, start - 30) : start + 30])
        return target

    def _closing_opener(
        self, context: Sequence[Prepared], message: Prepared, tools: Any, arguments: dict[str, Any], body: str
    ) -> str | None:
        """Return the stop token with which the next message opens, for models whose turns end that way (GLM).

        Two different next messages are rendered; what they share after the turn is the opener.
        """
        texts = []
        for content in ("qz1", "zq2"):
            if message.get("tool_calls"):
                call_id = message["tool_calls"][0].get("id", "call00000")
                name = message["tool_calls"][0]["function"]["name"]
                following = {"role": "tool", "name": name, "tool_call_id": call_id, "content": content}
            else:
                following = {"role": "user", "content": content}
            try:
                texts.append(self._render([*context, message, following], tools, False, arguments))
            except TurnRefused:
                return None
        openers = self._stops.find(texts[0], 0, common_prefix_length(*texts))
        if not openers:
            return None
        start, stop = openers[-1]
        tail = body.rstrip()[-24:]
        return texts[0][start:stop] if tail and texts[0][:start].rstrip().endswith(tail) else None


def _text(message: Prepared) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _json_escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _without_leading_block(body: str) -> str:
    """Remove an empty thinking block that the template writes before the turn and the prompt holds already."""
    for opening, closing in THINKING_BLOCKS:
        if body.startswith((opening, closing)):
            body = body[body.index(closing) + len(closing) :] if closing in body else body
            return body.lstrip("\n")
    return body
