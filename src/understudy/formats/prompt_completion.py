"""Rows of a prompt and a completion, as TRL and many fine-tuning services have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from understudy.types import JSON, Episode, tools_from_openai, tools_to_openai

from .base import Format
from .context_split import read_half, read_halves, write_halves
from .episode_fields import put_fields, take_fields, with_tools


class PromptCompletion(Format):
    """``{"prompt": text or […], "completion": text or […]}``. Only the completion is trained."""

    name: ClassVar[str] = "prompt_completion"
    summary: ClassVar[str] = (
        '{"prompt": text or messages, "completion": text or messages}; only the completion is trained'
    )

    def match(self, row: Mapping[str, JSON]) -> str | None:
        halves = row.get("prompt"), row.get("completion")
        return (
            "'prompt' and 'completion' hold text or messages"
            if all(isinstance(h, str | list) for h in halves)
            else None
        )

    def read_row(self, row: Mapping[str, JSON], id: str) -> list[Episode]:
        rest = dict(row)
        prompt = read_half(rest.pop("prompt", None), "prompt", text_role="user", default_role=None)
        completion = read_half(
            rest.pop("completion", None), "completion", text_role="assistant", default_role="assistant"
        )
        tools = tools_from_openai(rest.pop("tools", None))
        return [take_fields(rest, id).build(with_tools(read_halves(prompt, completion), tools))]

    def write_row(self, episode: Episode) -> dict[str, JSON]:
        trajectory = episode.trajectories[0]
        prompt, completion = write_halves(trajectory)
        row: dict[str, JSON] = {"prompt": prompt, "completion": completion}
        tools = tools_to_openai(trajectory.tools())
        return row | ({"tools": tools} if tools else {}) | put_fields(episode)
