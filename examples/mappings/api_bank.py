"""API-Bank dialogues: an entry of role API holds a call and its result.

The call belongs to what the assistant said just before it, and to an assistant message without text otherwise. The
result repeats the call's name and input, which are left out.
"""

import json
from collections.abc import Iterator
from typing import Any

ROLES = {"User": "user", "AI": "assistant"}


def episodes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one dialogue; an empty dialogue has no turns."""
    messages: list[dict[str, Any]] = []
    for turn in row["turns"]:
        if turn["role"] != "API":
            messages.append({"role": ROLES[turn["role"]], "content": turn["text"]})
            continue
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        call = {"function": {"name": turn["api_name"], "arguments": turn["param_dict"]}}
        messages[-1].setdefault("tool_calls", []).append(call)
        outcome = {key: value for key, value in turn["result"].items() if key not in ("api_name", "input")}
        result = json.dumps(outcome, ensure_ascii=False)
        messages.append({"role": "tool", "name": turn["api_name"], "content": result})
    yield {
        "id": row.get("_src"),
        "environment": "api-bank",
        "messages": messages,
        "metadata": {key: value for key, value in row.items() if key not in ("_src", "turns")},
    }
