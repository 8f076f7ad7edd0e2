"""inspect_ai logs: `.eval` files, whose rows are samples, and `.json` logs, which hold all samples in one object.

Long texts and images are attachments in the log and are put back in. A single score that says correct or incorrect
("C" or "I") is the episode's success, a single number its reward; anything else stays in the metadata only.
"""

from collections.abc import Iterator
from typing import Any

ATTACHMENT = "attachment://"


def episodes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of each sample."""
    if "samples" in row:
        log = {key: value for key, value in row.items() if key != "samples"}
        for sample in row["samples"] or []:
            yield _episode(sample, log)
    else:
        yield _episode(row, row.get("header") or {})


def _episode(sample: dict[str, Any], log: dict[str, Any]) -> dict[str, Any]:
    about = log.get("eval") or {}
    attachments = sample.get("attachments") or {}
    score = _single_score(sample.get("scores") or {})
    messages = [_message(message) for message in _attached(sample["messages"], attachments)]
    return {
        "id": f"{about.get('task')}-{sample['id']}-epoch-{sample['epoch']}",
        "environment": about.get("task"),
        "task": _attached(sample.get("input"), attachments),
        "policy": about.get("model"),
        "messages": messages,
        "tools": _attached(_tools(sample.get("events") or []), attachments),
        "success": {"C": True, "I": False}.get(score) if isinstance(score, str) else None,
        "reward": score if isinstance(score, int | float) else None,
        "stop_reason": (sample.get("limit") or {}).get("type"),
        "error": (sample.get("error") or {}).get("message"),
        "created_at": about.get("created"),
        "metadata": {key: value for key, value in sample.items() if key not in ("messages", "header")} | {"log": log},
    }


def _attached(value: Any, attachments: dict[str, str]) -> Any:
    """Return `value` with the attachments that it names put in."""
    if isinstance(value, str) and value.startswith(ATTACHMENT):
        return attachments.get(value.removeprefix(ATTACHMENT), value)
    if isinstance(value, list):
        return [_attached(item, attachments) for item in value]
    if isinstance(value, dict):
        return {key: _attached(item, attachments) for key, item in value.items()}
    return value


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Assistant messages that the task's author wrote into the input are not trained."""
    if message["role"] == "assistant" and message.get("source") == "input":
        return {**message, "weight": 0}
    return message


def _tools(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools of the first call of a model."""
    calls = (event for event in events if event.get("event") == "model")
    return next((event.get("tools") or [] for event in calls), [])


def _single_score(scores: dict[str, Any]) -> Any:
    values = [score.get("value") for score in scores.values()]
    return values[0] if len(values) == 1 else None
