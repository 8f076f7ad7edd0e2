"""Where in a prompt the observed messages stand, for the world-model objective.

The prompt is rendered once more with private-use characters around each message's stripped content. The result counts
only if removing them gives the prompt back byte for byte. A template that looks at the edges of a content defeats
this; there a content that occurs just once in the prompt is taken as found.

An observation's tokens are all that hold some of its content, and those through the added token that ends its message:
as an action is learnt through its stop token, so that a model knows when the environment has said all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .continuation import Prepared
from .refusal import TurnRefused
from .segments import SegmentTokenizer

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARKS = re.compile(f"[{_OPEN}{_CLOSE}]")

_CLOSING = re.compile(r"\s*(?:</[\w|]+>\s*)?")
"""What templates write between a content and the added token that ends its message."""

Spans = dict[int, tuple[int, int]]


def locate_contents(
    context: Sequence[Prepared], wanted: Sequence[int], prompt: str, render: Callable[[list[Prepared]], str]
) -> Spans:
    """Return the character span in `prompt` of the stripped content of each wanted message that can be located.

    Args:
        context: the prepared messages of the prompt.
        wanted: indices into `context`.
        render: gives the prompt's text for changed messages.
    """
    candidates = [index for index in wanted if _markable(context[index])]
    if not candidates or _MARKS.search(prompt):
        return {}
    together = _attempt(context, candidates, prompt, render)
    if together is not None:
        return together
    found: Spans = {}
    for index in candidates:
        alone = _attempt(context, [index], prompt, render)
        core = context[index]["content"].strip()
        if alone is not None:
            found.update(alone)
        elif prompt.count(core) == 1:
            start = prompt.index(core)
            found[index] = (start, start + len(core))
    return found


def observed_tokens(segments: SegmentTokenizer, prompt: str, start: int, stop: int) -> tuple[int, int] | None:
    """Return the index range of the tokens of the observation whose content is the characters start to stop."""
    ending = segments.added_token_after(prompt, stop)
    if ending is not None and _CLOSING.fullmatch(prompt, stop, ending[0]):
        stop = ending[1]
    return segments.token_range(prompt, start, stop)


def _markable(message: Prepared) -> bool:
    content = message.get("content")
    return isinstance(content, str) and bool(content.strip()) and not _MARKS.search(content)


def _attempt(
    context: Sequence[Prepared], indices: list[int], prompt: str, render: Callable[[list[Prepared]], str]
) -> Spans | None:
    """Mark these messages together; None unless every mark comes back in order around the unchanged prompt."""
    chosen = set(indices)
    try:
        marked = render([_mark(message) if i in chosen else message for i, message in enumerate(context)])
    except TurnRefused:
        return None
    if _MARKS.sub("", marked) != prompt:
        return None
    marks = list(_MARKS.finditer(marked))
    if len(marks) != 2 * len(indices):
        return None
    spans: Spans = {}
    for n, index in enumerate(sorted(indices)):
        opening, closing = marks[2 * n], marks[2 * n + 1]
        if (opening.group(), closing.group()) != (_OPEN, _CLOSE):
            return None
        start, stop = opening.start() - 2 * n, closing.start() - 2 * n - 1
        if start >= stop:
            return None
        spans[index] = (start, stop)
    return spans


def _mark(message: Prepared) -> Prepared:
    content = message["content"]
    core = content.strip()
    start = content.index(core)
    return {**message, "content": content[:start] + _OPEN + core + _CLOSE + content[start + len(core) :]}
