"""OpenHands evaluation outputs (output.jsonl): an event stream in each row.

An action that a model decided carries the model's own response, which is taken word for word; one response may have
led to several actions. Logs of older versions hold neither the responses nor who acted, and may pair each action with
its observation: there a call is made of the action's name and arguments. Events that no model saw in this form
(recalled knowledge, changes of state) are kept in the metadata as `other_events`. Of an action, what only restates the
response is left out: its arguments, its text for people and the running totals of its cost.
"""

import json
from collections.abc import Iterator
from typing import Any

MACHINERY = ("recall", "agent_state_changed", "change_agent_state", "null", "condensation", "condensation_request")
"""Actions and observations of the harness itself."""


def episodes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one row."""
    events = list(_flat(row["history"]))
    stream = [event for event in events if _name(event) not in MACHINERY]
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    responses: set[str] = set()
    for event in stream:
        if event.get("action") == "system":
            messages.append({"role": "system", "content": event["args"]["content"], **_about(event)})
            tools = event["args"].get("tools") or []
        elif event.get("action"):
            messages.extend(_decided(event, responses, messages))
        else:
            messages.append(_observed(event, messages))
    error = row.get("error") or ""
    out_of_turns = "maximum iteration" in error
    rest = {key: value for key, value in row.items() if key != "history"}
    yield {
        "id": row.get("instance_id"),
        "environment": "openhands",
        "messages": messages,
        "tools": tools,
        "policy": ((row.get("metadata") or {}).get("llm_config") or {}).get("model"),
        "stop_reason": "max_iterations" if out_of_turns else _name(stream[-1]) if stream else None,
        "error": None if out_of_turns else error or None,
        "metadata": {**rest, "other_events": [event for event in events if _name(event) in MACHINERY]},
    }


def _flat(history: list[Any]) -> Iterator[dict[str, Any]]:
    for entry in history:
        yield from entry if isinstance(entry, list) else [entry]


def _name(event: dict[str, Any]) -> str:
    return event.get("action") or event.get("observation") or "null"


def _decided(event: dict[str, Any], responses: set[str], before: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the message of an action; nothing when its response has led to an earlier action already.

    Where a log does not say who spoke, it is the user at the start and after the agent's own words.
    """
    arguments = dict(event.get("args") or {})
    call = event.get("tool_call_metadata")
    if call is not None:
        response = call["model_response"]
        if response["id"] not in responses:
            responses.add(response["id"])
            yield {**response["choices"][0]["message"], "response": _about(response), **_about(event)}
    elif event["action"] == "message":
        last = before[-1] if before else {"role": "system"}
        is_users_turn = last["role"] == "system" or (last["role"] == "assistant" and not last.get("tool_calls"))
        source = event.get("source") or ("user" if is_users_turn else "agent")
        role = "assistant" if source == "agent" else "user"
        yield {"role": role, "content": arguments.get("content"), **_about(event)}
    else:
        thought = None if event["action"] == "think" else arguments.pop("thought", None)
        call = {"function": {"name": event["action"], "arguments": arguments}}
        yield {"role": "assistant", "content": thought, "tool_calls": [call], **_about(event)}


def _observed(event: dict[str, Any], before: list[dict[str, Any]]) -> dict[str, Any]:
    content = event.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    call = event.get("tool_call_metadata")
    if call is not None:
        about = {"tool_call_id": call["tool_call_id"], "name": call["function_name"], **_about(event)}
        return {"role": "tool", "content": text, **about}
    answers_call = bool(before) and bool(before[-1].get("tool_calls"))
    return {"role": "tool" if answers_call else "user", "content": text, **_about(event)}


def _about(event: dict[str, Any]) -> dict[str, Any]:
    """Return what stands beside the text of an event or a response: when it was, what caused it, its outcome."""
    kept = ("id", "timestamp", "cause", "extras", "created", "model", "system_fingerprint", "usage")
    return {key: event[key] for key in kept if event.get(key) is not None}
