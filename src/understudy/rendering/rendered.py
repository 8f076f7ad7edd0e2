"""What rendering a trajectory gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.types import TokenTree

from .refusal import Refusal


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """One turn that was rendered exactly.

    Args:
        turn: index of the turn in its trajectory.
        sequence: index of its sequence in the tree.
        num_prompt_tokens, num_target_tokens: lengths of the two halves of that sequence.
        checksum: CRC-32 of the call's ids as int32 bytes, taken before they enter the tree.
        how: the way in which its text was found, or ``recorded``.
        arguments: thinking flags that were set for this turn besides the profile's template arguments.
        target: the text of the target; None where recorded ids were used without their text.
    """

    turn: int
    sequence: int
    num_prompt_tokens: int
    num_target_tokens: int
    checksum: int
    how: str
    arguments: dict[str, Any]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ControlString:
    """A control token's text inside an ordinary message. The server's tokenizer makes a control token of it as well."""

    turn: int
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class DroppedContext:
    """A message of the context that the template does not print, so the model never sees it."""

    turn: int
    role: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Recorded ids held against the rendering of the same turn.

    `first_difference` is the depth of the first token that differs, None where all are equal or where the rendering
    was refused (then `refusal` says why).
    """

    turn: int
    equal: bool
    first_difference: int | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """What rendering a trajectory gave; `refusals` and the rest are for reports and never change the tree.

    `drops_tools` is True where the trajectory offers tools and the template prints none, so the model never sees them.
    """

    tree: TokenTree
    turns: tuple[RenderedTurn, ...]
    refusals: tuple[Refusal, ...] = ()
    control_strings: tuple[ControlString, ...] = ()
    dropped_context: tuple[DroppedContext, ...] = ()
    drops_tools: bool = False
    num_unlocated_observations: int = 0
    audits: tuple[Audit, ...] = ()
