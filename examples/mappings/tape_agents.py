"""TapeAgents: tapes with the model's calls inside, and training samples that are token ids already.

Both keep the ids that the engine saw and wrote, with log probabilities; they are taken over verbatim.
"""

import re
from collections.abc import Iterator
from typing import Any

from understudy.errors import FormatError

LLAMA_3_MESSAGE = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
NOT_A_LABEL = -100


def tapes(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one tape: every step that holds a model's call is a conversation of its own."""
    calls = [call for step in row["steps"] if (call := step["metadata"]["other"].get("llm_call"))]
    conversations = []
    for call in calls:
        logprobs = call.get("logprobs") or []
        sampled = {
            "prompt_ids": call["prompt"].get("token_ids"),
            "output_ids": [each["token_id"] for each in logprobs],
            "logprobs": [each["logprob"] for each in logprobs],
        }
        conversations.append([*call["prompt"]["messages"], {**call["output"], "sampled": sampled}])
    yield {
        "id": row["metadata"]["id"],
        "environment": "tape-agents",
        "agent": row["metadata"].get("author"),
        "policy": calls[0]["llm_info"]["model_name"] if calls else None,
        "error": row["metadata"].get("error"),
        "messages": conversations,
        "tools": calls[0]["prompt"].get("tools") if calls else None,
        "metadata": {
            "tape": row["metadata"],
            "context": row.get("context"),
            "steps": [_without_conversation(step) for step in row["steps"]],
        },
    }


def _without_conversation(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step without the parts of its call that have become messages and token ids."""
    other = dict(step["metadata"]["other"])
    if other.get("llm_call"):
        taken = ("prompt", "output", "logprobs")
        other["llm_call"] = {key: value for key, value in other["llm_call"].items() if key not in taken}
    return {**step, "metadata": {**step["metadata"], "other": other}}


def training_samples(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the episode of one sample: the labels say where the model's own ids begin."""
    ids, labels = row["input_ids"], row["labels"]
    start = next((k for k, label in enumerate(labels) if label != NOT_A_LABEL), len(labels))
    if labels[start:] != ids[start:]:
        raise FormatError("the labels after the prompt are not the ids themselves", field="labels")
    messages = [{"role": role, "content": text} for role, text in LLAMA_3_MESSAGE.findall(row["text"])]
    messages[-1]["sampled"] = {"prompt_ids": ids[:start], "output_ids": ids[start:], "logprobs": row["logprobs"]}
    kept = ("group_id", "n_predicted", "ref_logprobs")
    yield {
        "environment": "tape-agents",
        "messages": messages,
        "reward": row["reward"],
        "metadata": {key: row[key] for key in kept if key in row},
    }
