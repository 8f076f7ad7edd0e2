"""Taskmaster-4 (TM-4-2024): dialogues of an ordering assistant, and single next steps with a reward."""

import json
from collections.abc import Iterator
from typing import Any


def dialogues(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one row of data/*.json.

    The API calls that follow an utterance are its annotations: the call's name, its request (missing where there are no
    arguments), and the response, tied together by the number in `context`.
    """
    messages: list[dict[str, Any]] = []
    for utterance in row["utterances"]:
        rest = {key: value for key, value in utterance.items() if key not in ("speaker", "text", "annotations")}
        messages.append({"role": utterance["speaker"], "content": utterance["text"], **rest})
        for number, call in _calls(utterance["annotations"]).items():
            function: dict[str, Any] = {"name": call["api_call"], "arguments": call.get("request", {})}
            messages.append({"role": "assistant", "tool_calls": [{"id": number, "function": function}]})
            messages.append({"role": "tool", "tool_call_id": number, "content": call["response"]})
    yield {
        "id": row["conversation_id"],
        "environment": "taskmaster-4",
        "messages": messages,
        "metadata": {key: value for key, value in row.items() if key not in ("conversation_id", "utterances")},
    }


def _calls(annotations: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return the annotations by the number of their call, in order."""
    calls: dict[str, dict[str, str]] = {}
    for annotation in annotations:
        number = annotation["context"].rpartition("_")[2]
        calls.setdefault(f"call_{number}", {})[annotation["name"]] = annotation["value"]
    return calls


def rewards(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one row of reward/*.json: the context is shown and not trained, the one step after it is."""
    context = [_step(step) | {"weight": 0} for step in json.loads(row["context"])]
    generation = json.loads(row["generation"])
    yield {
        "environment": "taskmaster-4",
        "messages": [*context, _step(generation)],
        "reward": row["reward"],
        "metadata": {"conversation_id": row["conversation_id"]},
    }


def _step(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step as a message; calls and responses are objects of one key, the API's name."""
    if "api" in step:
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in step["api"].items()]
        return {"role": "assistant", "tool_calls": calls}
    if "response" in step:
        (name, response), *_ = step["response"].items()
        return {"role": "tool", "name": name, "content": json.dumps(response, ensure_ascii=False)}
    return {"role": "assistant" if step["role"] == "agent" else step["role"], "content": step["text"]}
