"""A small model whose template is ChatML, and what its renderings hold, decoded."""

from __future__ import annotations

from typing import Any

from tests.rendering.small_tokenizers import byte_level
from understudy.rendering import ModelTokenizer, Rendered
from understudy.types import Episode, SpanKind, Trajectory

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def small(template: str | dict[str, str] = CHATML, **special: str) -> ModelTokenizer:
    return byte_level("<|im_start|>", "<|im_end|>", "</s>", template=template, **special)


def talk(*messages: dict[str, Any], tools: Any = ()) -> Trajectory:
    return Episode.from_messages(messages, tools=tools).trajectories[0]


def decode(tokenizer: ModelTokenizer, ids: Any) -> str:
    return tokenizer.backend.decode(list(map(int, ids)), skip_special_tokens=False)


def sequences(tokenizer: ModelTokenizer, rendered: Rendered) -> list[tuple[str, str]]:
    """(prompt, target) of each rendered turn, decoded."""
    out = []
    for turn in rendered.turns:
        ids = rendered.tree.sequence_ids(turn.sequence)
        out.append((decode(tokenizer, ids[: turn.num_prompt_tokens]), decode(tokenizer, ids[turn.num_prompt_tokens :])))
    return out


def observed(tokenizer: ModelTokenizer, rendered: Rendered) -> list[tuple[int, str, str]]:
    """(turn, role, decoded tokens) of each observation span."""
    return [
        (span.turn, span.label, decode(tokenizer, rendered.tree.ids[tokens]))
        for span, tokens in rendered.tree.spans()
        if span.kind == SpanKind.OBSERVATION
    ]
