"""Where a model is to write the next observation: after which ids, up to which token, and what of it is content.

A message that stands in for the observation is rendered and located by the code that locates observations in training.
So the ids in front of it are those that a world model was trained behind, and what ends it is what it learnt to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from understudy.errors import RenderError
from understudy.types import Message, Tool, tools_to_openai

from .observations import locate_contents, observed_tokens
from .refusal import TurnRefused
from .renderer import Renderer

_STAND_IN = 'qz "seen"'
"""With quotes, which show whether the template writes contents as they are."""


@dataclass(frozen=True, slots=True)
class NextObservation:
    """What is to be gone on with, and how what is written is read.

    Args:
        prompt_ids: all ids before the observation's first token.
        end_id: the token that ends it; None where the template ends it with none of its own.
        opening, closing: what the observation's tokens hold of the template's text, before and after the content.
    """

    prompt_ids: tuple[int, ...]
    end_id: int | None
    opening: str
    closing: str

    def content(self, text: str) -> str:
        """Return the content in what was written, the token that ends it left out."""
        return text.removeprefix(self.opening).removesuffix(self.closing).strip()


def next_observation(
    renderer: Renderer, messages: Sequence[Message], tools: Sequence[Tool], expected: Message
) -> NextObservation:
    """Return where a model writes the next message of a conversation.

    Args:
        messages: the conversation so far.
        expected: the message that comes, whose content does not matter: its role, and the call that it answers.

    Raises:
        RenderError: the template refuses the conversation, does not show where such a message's content stands, or
            writes it in a way that cannot be read back, such as JSON's.
    """
    given = tools_to_openai(tools)
    segments, writer = renderer.segments, renderer.writer_for(given)
    try:
        context = [renderer.profile.prepare(one) for one in (*messages, replace(expected, content=_STAND_IN))]
        prompt = writer.prompt(context, given)
    except TurnRefused as refused:
        raise RenderError(f"the conversation cannot be rendered: {refused}") from refused
    last = len(context) - 1
    found = locate_contents(context, [last], prompt, lambda changed: writer.prompt(changed, given)).get(last)
    tokens = observed_tokens(segments, prompt, *found) if found is not None else None
    if found is None or tokens is None:
        raise RenderError(f"this chat template does not show where the content of a {expected.role} message stands")
    (start, stop), (first, after) = found, tokens
    if prompt[start:stop] != _STAND_IN:
        raise RenderError(f"this chat template rewrites the content of a {expected.role} message: {prompt[start:stop]}")
    ids = segments.encode(prompt)
    end_id = int(ids[after - 1])
    ending = segments.added_token_after(prompt, stop)
    is_ended = ending is not None and end_id == segments.added[prompt[slice(*ending)]]
    before = segments.encode(prompt[:start])[first:].tolist()
    return NextObservation(
        prompt_ids=tuple(ids[:first].tolist()),
        end_id=end_id if is_ended else None,
        opening=str(renderer.tokenizer.backend.decode(before, skip_special_tokens=False)),
        closing=prompt[stop : ending[0]] if is_ended and ending is not None else "",
    )
