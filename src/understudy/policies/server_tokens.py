"""Token ids and log probabilities in the replies of servers, which each put them in places of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.types import JSON, SampledTokens

ASKING_FOR_TOKENS: dict[str, dict[str, JSON]] = {
    "none": {},
    "vllm": {"return_token_ids": True, "logprobs": True},
    "sglang": {"return_prompt_token_ids": True, "return_meta_info": True, "logprobs": True},
}
"""What to add to a request so that the server gives the ids."""


def read_sampled(reply: Mapping[str, Any], choice: Mapping[str, Any]) -> SampledTokens | None:
    """Return the ids of prompt and output; None where the server does not give both.

    vLLM: ``prompt_token_ids`` of the reply, ``token_ids`` and ``logprobs.content[].logprob`` of the choice.
    SGLang: ``prompt_token_ids`` of the choice, and ``meta_info.output_token_logprobs`` of (log probability, id, text).

    Raises:
        ValueError, LookupError, TypeError: they stand there in another shape.
    """
    prompt_ids = reply.get("prompt_token_ids") or choice.get("prompt_token_ids")
    if not prompt_ids:
        return None
    triples = (choice.get("meta_info") or {}).get("output_token_logprobs")
    if triples:
        return SampledTokens(
            tuple(map(int, prompt_ids)),
            tuple(int(triple[1]) for triple in triples),
            tuple(float(triple[0]) for triple in triples),
        )
    output_ids = choice.get("token_ids")
    if not output_ids:
        return None
    contents = (choice.get("logprobs") or {}).get("content") or ()
    logprobs = tuple(float(content["logprob"]) for content in contents)
    return SampledTokens(
        tuple(map(int, prompt_ids)),
        tuple(map(int, output_ids)),
        logprobs if len(logprobs) == len(output_ids) else None,
    )
