"""Real episodes for the trainer's tests: tau-bench's, through Qwen3's chat template and a small tokenizer."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import zstandard

from understudy.models.tiny import train_tokenizer
from understudy.rendering import Renderer, from_transformers
from understudy.types import Message, TokenTree, Tool, ToolCall, Trajectory, turns_from_messages

# Long system prompts and tool results are cut, so that a parity test takes seconds.
MAX_TEXT = 160


@dataclass(frozen=True)
class Rendered:
    """A trajectory and its tree."""

    trajectory: Trajectory
    tree: TokenTree


def read_episodes(data: Path, num_episodes: int) -> list[list[dict]]:
    """Return the messages of the first episodes."""
    file = next((data / "corpus" / "tau_bench").glob("*.jsonl.zst"))
    with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        return [json.loads(line)["traj"] for line, _ in zip(lines, range(num_episodes), strict=False)]


def to_messages(rows: list[dict]) -> list[Message]:
    return [
        Message(
            role=row["role"],
            content=(row.get("content") or "")[:MAX_TEXT],
            tool_calls=tuple(
                ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in row.get("tool_calls") or ()
            ),
        )
        for row in rows
    ]


@lru_cache(maxsize=4)
def tiny_renderer(data: Path) -> Renderer:
    """Qwen3's template, which rewrites history and so makes branches, with a tokenizer of 600 tokens."""
    texts = [message.text() for rows in read_episodes(data, 20) for message in to_messages(rows)]
    template = (data / "tokenizers" / "qwen3" / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = train_tokenizer(texts, vocab_size=600, chat_template=template)
    return Renderer(from_transformers(tokenizer, name="tiny"), observations=True)


@lru_cache(maxsize=8)
def rendered(data: Path, shape: str, num_episodes: int = 3, num_messages: int = 9) -> tuple[Rendered, ...]:
    """Return the episodes as one trajectory each (``episode``), or one for each assistant turn (``turn``)."""
    renderer = tiny_renderer(data)
    tools = [
        Tool.from_openai(tool) for tool in json.loads((data / "corpus/tau_bench/tools.json").read_text())["airline"]
    ]
    out: list[Rendered] = []
    for rows in read_episodes(data, num_episodes):
        messages = to_messages(rows[:num_messages])
        out.extend(
            Rendered(trajectory, renderer.render(trajectory).tree)
            for trajectory in _trajectories(messages, tools, shape)
        )
    return tuple(out)


def _trajectories(messages: list[Message], tools: list[Tool], shape: str) -> list[Trajectory]:
    turns = turns_from_messages(messages, tools=[replace(tool, definition=_short(tool)) for tool in tools[:2]])
    if shape == "episode":
        return [Trajectory(turns)]
    acting = [index for index, turn in enumerate(turns) if turn.action is not None]
    return [
        Trajectory(tuple(replace(turn, weight=float(index == last)) for index, turn in enumerate(turns[: last + 1])))
        for last in acting
    ]


def _short(tool: Tool) -> dict:
    function = {"name": tool.name, "description": tool.description[:40], "parameters": {"type": "object"}}
    return {"type": "function", "function": function}
