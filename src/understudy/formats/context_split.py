"""Conversations in two halves: a context that is never trained, and a target."""

from __future__ import annotations

from understudy.errors import FormatError
from understudy.types import JSON, Message, Trajectory, Turn, message_to_row, message_weight, turns_from_messages
from understudy.types.fields import kind
from understudy.types.openai import message_from_openai

from .linear import weighted_messages


def read_halves(context: list[Message], target: list[Message]) -> tuple[Turn, ...]:
    """Return the turns of both halves; assistant messages of the context get weight 0.

    Raises:
        FormatError: both halves are empty.
    """
    if not context and not target:
        raise FormatError("there is no message", mend="leave the row out")
    weights = [0.0] * len(context) + [1.0 if (own := message_weight(m)) is None else own for m in target]
    return turns_from_messages([*context, *target], weights=weights)


def write_halves(trajectory: Trajectory) -> tuple[list[dict[str, JSON]], list[dict[str, JSON]]]:
    """Cut a linear trajectory before its first trained action; before its last action when none is trained."""
    pairs = weighted_messages(trajectory)
    spoken = [index for index, (_, weight) in enumerate(pairs) if weight is not None]
    trained = [index for index in spoken if pairs[index][1]]
    cut = trained[0] if trained else spoken[-1] if spoken else len(pairs)
    context = [message_to_row(message) for message, _ in pairs[:cut]]
    return context, [message_to_row(*pair) for pair in pairs[cut:]]


def read_half(value: JSON, field: str, *, text_role: str, default_role: str | None) -> list[Message]:
    """Read one half: text is one message of `text_role`; in a list, `default_role` is for messages that name none.

    Raises:
        FormatError: it is neither, or a message has no clear meaning.
    """
    if isinstance(value, str):
        return [Message(text_role, value)]
    if not isinstance(value, list | tuple):
        raise FormatError(f"expected text or a list of messages, not {kind(value)}", field=field)
    return [message_from_openai(one, f"{field}[{i}]", default_role=default_role) for i, one in enumerate(value)]
