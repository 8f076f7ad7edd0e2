"""ToolTalk conversations: an assistant's utterance lists the API calls that it made before it spoke."""

import json
from collections.abc import Iterator
from typing import Any


def episodes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one row. The calls of one utterance were made one after another."""
    messages: list[dict[str, Any]] = []
    for utterance in row["conversation"]:
        for call in utterance.get("apis", []):
            request = call["request"]
            function = {"name": request["api_name"], "arguments": request["parameters"]}
            messages.append({"role": "assistant", "tool_calls": [{"function": function}]})
            outcome = {"response": call["response"], "exception": call["exception"]}
            result = json.dumps(outcome, ensure_ascii=False)
            messages.append({"role": "tool", "name": request["api_name"], "content": result})
        rest = {key: value for key, value in utterance.items() if key not in ("text", "apis")}
        messages.append({"content": utterance["text"], **rest})
    yield {
        "id": row["name"],
        "environment": "tooltalk",
        "messages": messages,
        "metadata": {key: value for key, value in row.items() if key not in ("name", "conversation")},
    }
