"""The rows of the training benchmark: tau-bench's episodes as TRL tokenises and masks them for Qwen3.

All contenders get the very same ids and labels, so their losses must agree.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

QWEN3_VOCAB_SIZE = 151_936


def episode_messages(data: Path) -> list[list[dict[str, Any]]]:
    """Return each episode's messages in OpenAI's format, with arguments as objects."""
    import zstandard

    file = next((data / "corpus" / "tau_bench").glob("*.jsonl.zst"))
    with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        episodes = [json.loads(line)["traj"] for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n")]
    return [[_message(row) for row in episode] for episode in episodes]


def _message(row: dict[str, Any]) -> dict[str, Any]:
    message = {"role": row["role"], "content": row.get("content") or ""}
    calls = [call["function"] for call in row.get("tool_calls") or ()]
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call["name"], "arguments": json.loads(call["arguments"])}}
            for call in calls
        ]
    return message


def episode_rows(data: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (ids [T], supervised [T]) of each episode, by TRL's training template with its assistant mask."""
    from transformers import AutoTokenizer
    from trl.chat_template_utils import get_training_chat_template

    tokenizer = AutoTokenizer.from_pretrained(str(data / "tokenizers" / "qwen3"))
    tools = json.loads((data / "corpus" / "tau_bench" / "tools.json").read_text(encoding="utf-8"))["airline"]
    template = get_training_chat_template(tokenizer)
    rows = []
    for messages in episode_messages(data):
        encoded = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        rows.append((np.array(encoded["input_ids"], np.int32), np.array(encoded["assistant_masks"], bool)))
    return rows


def turn_rows(rows: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return one row for each assistant turn: all before it as context, only its own tokens supervised."""
    out = []
    for ids, supervised in rows:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], supervised, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            mask = np.zeros(stop, bool)
            mask[start:stop] = True
            out.append((ids[:stop], mask))
    return out


def write_rows(path: Path, rows: list[tuple[np.ndarray, np.ndarray]], vocab_size: int) -> None:
    """Write rows for the workers. A smaller vocabulary folds the ids into it: the speed is that of its size."""
    lengths = np.array([len(ids) for ids, _ in rows])
    ids = np.concatenate([ids for ids, _ in rows])
    np.savez(
        path,
        lengths=lengths,
        ids=ids if vocab_size >= QWEN3_VOCAB_SIZE else ids % vocab_size,
        supervised=np.concatenate([mask for _, mask in rows]),
    )


def read_rows(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read what `write_rows` wrote."""
    with np.load(path) as stored:
        edges = np.cumsum(stored["lengths"])[:-1]
        return list(zip(np.split(stored["ids"], edges), np.split(stored["supervised"], edges), strict=True))
