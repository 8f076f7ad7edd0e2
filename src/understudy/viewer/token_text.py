"""A token tree as coloured text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from understudy.types import SpanKind

from .token_groups import TokenGroup

if TYPE_CHECKING:
    from rich.text import Text

TRAINED = {SpanKind.ACTION: "bold green", SpanKind.OBSERVATION: "bold blue"}
# Foreign text must not steer the terminal: control characters are shown as their pictures (U+2400 and on).
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

UNTRAINED = {SpanKind.CONTEXT: "dim", SpanKind.ACTION: "yellow", SpanKind.OBSERVATION: "dim"}


def token_text(groups: Iterable[TokenGroup], *, show_ids: bool = False) -> Text:
    """Return the groups as one text: trained actions bold green, trained observations bold blue, the rest dim.

    Args:
        show_ids: write every group's ids after it.
    """
    from rich.text import Text

    out = Text()
    for group in groups:
        if group.is_branch:
            out.append(f"\n── branch at token {group.depth:,} ──\n", style="magenta")
        style = TRAINED[group.kind] if group.weight and group.kind in TRAINED else UNTRAINED[group.kind]
        if group.is_control:
            style += " italic"
        out.append(group.text.translate(_PICTURES), style=style)
        if show_ids:
            out.append(f"⟨{' '.join(map(str, group.ids))}⟩", style="cyan")
    return out
