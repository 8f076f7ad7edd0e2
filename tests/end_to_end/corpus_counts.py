"""What the corpus's manifest counts and what we count, row by row, for the sources where the two differ on purpose.

Both counts are made from the raw rows alone. `manifest` repeats how the manifest was counted, which its total proves;
`ours` is what the row must decode to. Counts are of messages by role, and of ``calls``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Counts = Counter[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a source is counted differently, and the two counts of a row."""

    why: str
    manifest: Callable[[Row], Counts]
    ours: Callable[[Row], Counts]


def _responses_items(row: Row) -> Iterator[tuple[str, bool]]:
    """Yield (role or kind, whether it is a piece of an assistant message) for each item of a Responses rollout."""
    given, output = row["responses_create_params"]["input"], row["response"]["output"]
    given = [{"role": "user"}] if isinstance(given, str) else given
    output = output[-1] if output and isinstance(output[0], list) else output
    for item in [*given, *output]:
        kind = item.get("type") if item.get("type") not in (None, "message") else item["role"]
        yield kind, kind in ("assistant", "reasoning", "function_call")


def _responses_manifest(row: Row) -> Counts:
    counts: Counts = Counter()
    after_assistant = False
    for kind, is_assistant in _responses_items(row):
        if kind == "function_call":
            counts["calls"] += 1
            counts["assistant"] += not after_assistant
        else:
            counts["tool" if kind == "function_call_output" else "assistant" if is_assistant else kind] += 1
        after_assistant = is_assistant
    return counts


def _responses_ours(row: Row) -> Counts:
    counts: Counts = Counter()
    after_assistant = False
    for kind, is_assistant in _responses_items(row):
        counts["calls"] += kind == "function_call"
        if not is_assistant:
            counts["tool" if kind == "function_call_output" else kind] += 1
        elif not after_assistant:
            counts["assistant"] += 1
        after_assistant = is_assistant
    return counts


def _taskmaster(row: Row, *, requests_are_messages: bool) -> Counts:
    counts: Counts = Counter()
    for utterance in row["utterances"]:
        counts[utterance["speaker"]] += 1
        names = Counter(annotation["name"] for annotation in utterance["annotations"])
        counts["calls"] += names["api_call"]
        counts["assistant"] += names["api_call"] + (names["request"] if requests_are_messages else 0)
        counts["tool"] += names["response"]
    return counts


def _taskmaster_rewards(row: Row, *, ours: bool) -> Counts:
    context = json.loads(row["context"])
    counts: Counts = Counter("assistant" if step["role"] == "agent" else step["role"] for step in context)
    counts["calls"] = sum("api" in step for step in context)
    counts["assistant"] += 1
    if ours:
        counts["calls"] += "api" in json.loads(row["generation"])
        counts["tool"] = counts.pop("api", 0)
    return counts


def _function_calling(messages: list[Row]) -> Counts:
    counts: Counts = Counter(message["role"] for message in messages)
    counts["calls"] = sum("function_call" in message for message in messages)
    return counts


def _toolbench_manifest(row: Row) -> Counts:
    conversations = row["answer_generation"].get("train_messages")
    return _function_calling(conversations[-1]) if conversations else Counter()


def _toolbench_ours(row: Row) -> Counts:
    """Count each turn once: a turn is told apart by everything that was said up to its action."""
    turns: dict[str, Counts] = {}
    for conversation in row["answer_generation"].get("train_messages") or []:
        start = 0
        for end, message in enumerate(conversation, start=1):
            if message["role"] == "assistant":
                turns[json.dumps(conversation[:end])] = _function_calling(conversation[start:end])
                start = end
    counts = sum(turns.values(), Counter())
    counts["tool"] = counts.pop("function", 0)
    return counts


def _tool_rl(row: Row, *, calls_in_text: bool) -> Counts:
    calls = row["output"].count('"name"') if calls_in_text else 0
    return Counter(system=1, user=1, assistant=1, calls=calls)


def _api_bank_manifest(row: Row) -> Counts:
    roles = {"User": "user", "AI": "assistant", "API": "tool"}
    counts: Counts = Counter(roles[turn["role"]] for turn in row["turns"])
    counts["calls"] = counts["tool"]
    return counts if row["turns"] else Counter(user=1)


def _api_bank_ours(row: Row) -> Counts:
    counts = _api_bank_manifest(row) if row["turns"] else Counter()
    before = [None, *(turn["role"] for turn in row["turns"])]
    counts["assistant"] += sum(
        turn["role"] == "API" and last != "AI" for last, turn in zip(before, row["turns"], strict=False)
    )
    return counts


def _openhands(row: Row, *, ours: bool) -> Counts:
    counts: Counts = Counter()
    for event in row["history"]:
        called = event.get("tool_call_metadata") is not None
        if ours and "recall" in (event.get("action"), event.get("observation")):
            continue
        if event.get("observation"):
            counts["tool" if called or not ours else "user"] += 1
        elif called:
            counts["assistant"] += 1
            counts["calls"] += 1
        else:
            counts["system" if event["action"] == "system" else "user"] += 1
    return counts


def _who_and_when_manifest(row: Row) -> Counts:
    return Counter("user" if step["name"] == "Computer_terminal" else "assistant" for step in row["history"])


def _who_and_when_ours(row: Row) -> Counts:
    counts: Counts = Counter()
    for agent in {step["name"] for step in row["history"]} - {"Computer_terminal"}:
        counts["system"] += agent in row["system_prompt"]
        counts += Counter("assistant" if step["name"] == agent else "user" for step in row["history"])
    return counts


RULES = {
    "gym": Rule(
        "a reasoning item and the text or call beside it are one message of one turn, and not two messages",
        _responses_manifest,
        _responses_ours,
    ),
    "tm4": Rule(
        "the request of a call holds its arguments and is no message of its own",
        lambda row: _taskmaster(row, requests_are_messages=True),
        lambda row: _taskmaster(row, requests_are_messages=False),
    ),
    "tm4r": Rule(
        "role api is the tool, and a generation may itself be a call",
        lambda row: _taskmaster_rewards(row, ours=False),
        lambda row: _taskmaster_rewards(row, ours=True),
    ),
    "toolbench": Rule(
        "role function is the tool, and calls whose context was rewritten later are kept with the context they had",
        _toolbench_manifest,
        _toolbench_ours,
    ),
    "alpaca": Rule(
        'calls are part of the text, in the prompt\'s own syntax; the manifest counts how often the text says "name"',
        lambda row: _tool_rl(row, calls_in_text=True),
        lambda row: _tool_rl(row, calls_in_text=False),
    ),
    "apibank": Rule(
        "a call needs an assistant message where no assistant spoke before it, and an empty dialogue has no message",
        _api_bank_manifest,
        _api_bank_ours,
    ),
    "openhands": Rule(
        "events that no model saw are no messages, and an error that answers no call is told as by the user",
        lambda row: _openhands(row, ours=False),
        lambda row: _openhands(row, ours=True),
    ),
    "whowhen": Rule(
        "each agent has the chat as it saw it, with its own system prompt",
        _who_and_when_manifest,
        _who_and_when_ours,
    ),
}
"""By the manifest's name of the format."""
