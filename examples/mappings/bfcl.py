"""BFCL's multi-turn tasks with their ground truth: for each user turn, the calls to make, written as Python.

The data holds no results. Positional arguments get their names from the function documentation
(multi_turn_func_doc/), which also gives the tools: func_docs=PATH names a JSON file with the documentation of each
class under its file's name.
"""

import ast
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

DOCUMENTS = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
"""The file that documents each class."""


def episodes(row: dict[str, Any], func_docs: str) -> Iterator[dict[str, Any]]:
    """Yield the episode of one task. The calls of one turn stand in one message."""
    documents = _read(func_docs)
    functions = [function for name in row["involved_classes"] for function in documents[DOCUMENTS[name]]]
    excluded = row.get("excluded_function") or []
    parameters = {function["name"]: list(function["parameters"]["properties"]) for function in functions}
    messages: list[dict[str, Any]] = []
    for question, calls in zip(row["question"], row["ground_truth"], strict=True):
        messages.extend(question)
        messages.append({"role": "assistant", "tool_calls": [_call(text, parameters) for text in calls]})
    yield {
        "id": row["id"],
        "environment": "bfcl",
        "messages": messages,
        "tools": [function for function in functions if function["name"] not in excluded],
        "metadata": {k: v for k, v in row.items() if k not in ("id", "question", "ground_truth")},
    }


@lru_cache
def _read(path: str) -> dict[str, list[dict[str, Any]]]:
    documents: dict[str, list[dict[str, Any]]] = json.loads(Path(path).read_text())
    return documents


def _call(text: str, parameters: dict[str, list[str]]) -> dict[str, Any]:
    """Return the tool call that a Python call such as ``mv(source='a', destination='b')`` says."""
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"not a call of a function: {text}")
    positional = dict(zip(parameters[call.func.id], call.args, strict=False))
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    arguments = {name: ast.literal_eval(value) for name, value in (positional | named).items()}
    return {"function": {"name": call.func.id, "arguments": arguments}}
