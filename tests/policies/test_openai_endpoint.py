"""The endpoint policy against a real HTTP server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest

from tests.openai_server import FAULTS, OpenAIServer
from understudy.collect import Play, play_all
from understudy.environments import Observation
from understudy.environments.math import Math
from understudy.errors import ConfigError, PolicyError
from understudy.policies import Context, ContextLengthExceeded
from understudy.policies.openai_endpoint import EndpointPolicy
from understudy.types import Episode, Message, SampledTokens, Tool, ToolCall

TOOL = Tool({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}})
MATH = {"kinds": ["expression"], "max_operand": 20}


def context(*messages: Message, tools: tuple[Tool, ...] = (), seed: int = 0) -> Context:
    shown = messages or (Message("user", "Compute 1 + 2."),)
    return Context(shown, tools, Observation(shown), 0, seed)


def ask(server: OpenAIServer, *messages: Message, tools: tuple[Tool, ...] = (), **arguments: Any) -> Any:
    async def once() -> Any:
        policy = EndpointPolicy("m", base_url=server.base_url, **QUICK | arguments)
        try:
            return await policy.act(context(*messages, tools=tools))
        finally:
            await policy.close()

    return asyncio.run(once())


QUICK = {"min_wait_seconds": 0.001, "max_wait_seconds": 0.05}


def saying(text: str) -> Any:
    return lambda body: {"role": "assistant", "content": text}


def collect(server: OpenAIServer, num: int, *, concurrency: int = 32, **arguments: Any) -> list[Episode]:
    tasks = Math(**MATH).tasks("train")
    episodes: list[Episode] = []

    async def play() -> None:
        policy = EndpointPolicy("m", base_url=server.base_url, **QUICK | arguments)
        which = [Play(id=str(i), task=tasks[i]) for i in range(num)]
        await play_all(which, lambda: Math(**MATH), {"agent": policy}, episodes.append, concurrency=concurrency)
        await policy.close()

    asyncio.run(play())
    return episodes


def test_what_is_sent_is_what_openai_takes() -> None:
    history = (
        Message("system", "rules"),
        Message("user", "go"),
        Message("assistant", None, reasoning_content="hm", tool_calls=(ToolCall("f", {"a": "ü"}, "call00000"),)),
        Message("tool", "done", tool_call_id="call00000", name="f"),
        Message("assistant", None),
        Message("user", "more", extra={"weight": 0}),
    )
    with OpenAIServer(saying("ok")) as server:
        action = ask(server, *history, tools=(TOOL,), temperature=0.5, max_tokens=7, extra_body={"top_k": 3})
        ask(server, *history, send_reasoning=True)
    first, second = server.bodies
    assert [first[key] for key in ("model", "temperature", "max_tokens", "top_k")] == ["m", 0.5, 7, 3]
    assert first["tools"] == [TOOL.definition]
    assert "tools" not in second
    sent = first["messages"]
    assert json.loads(sent[2]["tool_calls"][0]["function"].pop("arguments")) == {"a": "ü"}
    call = {"id": "call00000", "type": "function", "function": {"name": "f"}}
    assert sent == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "call00000", "name": "f"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "more"},
    ]
    assert second["messages"][2]["reasoning_content"] == "hm"
    assert (action.message, action.usage.prompt_tokens, action.usage.completion_tokens) == (
        Message("assistant", "ok"), 60, 5,
    )  # fmt: skip
    assert action.annotations == {"finish_reason": "stop"}


def test_calls_reasoning_and_missing_ids_are_read() -> None:
    def model(body: Any) -> dict[str, Any]:
        calls = [{"type": "function", "id": None, "function": {"name": "f", "arguments": '{"a": 1}'}}] * 2
        return {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": calls, "refusal": None}

    with OpenAIServer(model) as server:
        message = ask(server).message
    assert message.reasoning_content == "hm"
    assert [(call.name, call.arguments, call.id) for call in message.tool_calls] == [
        ("f", '{"a": 1}', "call00000"),
        ("f", '{"a": 1}', "call00001"),
    ]
    assert message.extra == {}


@pytest.mark.parametrize(
    ("asked", "extra", "sent", "sampled"),
    [
        (
            "vllm",
            {
                "prompt_token_ids": [1, 2],
                "choice": {"token_ids": [3, 4], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1}]}},
            },
            {"return_token_ids": True, "logprobs": True},
            SampledTokens((1, 2), (3, 4), (-0.5, -1.0)),
        ),
        (
            "sglang",
            {
                "choice": {
                    "prompt_token_ids": [1, 2],
                    "meta_info": {"output_token_logprobs": [[-0.5, 3, "a"], [-1, 4, None]]},
                }
            },
            {"return_prompt_token_ids": True, "return_meta_info": True, "logprobs": True},
            SampledTokens((1, 2), (3, 4), (-0.5, -1.0)),
        ),
        ("none", {"prompt_token_ids": [1], "choice": {"token_ids": [3]}}, {}, SampledTokens((1,), (3,))),
        ("none", {}, {}, None),
    ],
)
def test_token_ids_are_recorded_where_the_server_gives_them(
    asked: str, extra: dict, sent: dict, sampled: SampledTokens | None
) -> None:
    with OpenAIServer(saying("x"), extra=lambda body: json.loads(json.dumps(extra))) as server:
        assert ask(server, token_ids=asked).sampled == sampled
    assert {key: server.bodies[0].get(key) for key in sent} == sent
    assert "return_token_ids" in server.bodies[0] or asked != "vllm"


def test_ids_that_were_asked_for_and_not_given_are_no_silent_loss() -> None:
    with OpenAIServer(saying("x")) as server, pytest.raises(PolicyError, match="gives no token ids in the way of vllm"):
        ask(server, token_ids="vllm")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_passing_fault_is_outlasted(fault: str) -> None:
    with OpenAIServer(saying("ok"), faults=lambda number: fault if number < 4 else None) as server:
        assert ask(server, timeout_seconds=0.3).message.text() == "ok"
    assert server.met[fault] == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_ends_the_episode_and_says_what_it_was(fault: str) -> None:
    with OpenAIServer(faults=lambda number: fault) as server, pytest.raises(PolicyError, match=r"\(3 attempts\)"):
        ask(server, timeout_seconds=0.1, max_retries=2)
    assert server.num_requests == 3


def test_what_no_retry_can_save_is_not_tried_again() -> None:
    for fault, error in (
        ("400 bad_request: nonsense", PolicyError),
        ("400 context_length_exceeded: too long", ContextLengthExceeded),
        ("400 This model's maximum context length is 4096 tokens", ContextLengthExceeded),
        ("401 invalid_api_key: who are you", ConfigError),
        ("404 model_not_found: no m", ConfigError),
        ("429 insufficient_quota: pay", ConfigError),
    ):
        with OpenAIServer(faults=lambda number, fault=fault: fault) as server, pytest.raises(error):
            ask(server)
        assert server.num_requests == 1


def test_half_of_a_utf16_pair_is_said_at_once_and_not_taken_for_a_broken_reply() -> None:
    with OpenAIServer(saying("x")) as server, pytest.raises(PolicyError, match="cannot be sent") as caught:
        ask(server, Message("user", "half \ud83d"))
    assert "attempts" not in str(caught.value)
    assert server.bodies == []


def test_one_percent_of_each_fault_costs_no_episode() -> None:
    rng = random.Random(3)
    drawn = [rng.choice(FAULTS) if rng.random() < 0.05 else None for _ in range(2000)]
    with OpenAIServer(faults=lambda number: drawn[number]) as server:
        episodes = collect(server, 300, timeout_seconds=1.0)
    assert set(server.met) == set(FAULTS)
    assert [episode.error for episode in episodes if episode.error is not None] == []
    assert sorted(int(episode.id) for episode in episodes) == list(range(300))
    assert all(episode.success for episode in episodes)


def test_a_dead_server_is_recorded_as_an_error_and_not_as_failure() -> None:
    with OpenAIServer() as server:
        pass
    episodes = collect(server, 3, max_retries=1)
    assert all(episode.error.startswith("policy of agent: PolicyError: the connection failed") for episode in episodes)
    assert [episode.success for episode in episodes] == [None] * 3


def test_an_agents_own_broken_call_is_its_failure_and_no_error() -> None:
    def model(body: Any) -> dict[str, Any]:
        call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": '{"expr'}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    with OpenAIServer(model) as server:
        (episode,) = collect(server, 1)
    assert (episode.error, episode.success, episode.stop_reason) == (None, False, "max_steps")


def test_a_context_that_is_too_long_cuts_the_episode_short() -> None:
    faults = ["none", "400 context_length_exceeded: too long"]
    with OpenAIServer(faults=lambda number: faults[number] if number else None) as server:
        (episode,) = collect(server, 1)
    assert (episode.error, episode.success, episode.stop_reason) == (None, False, "context_length")
    assert episode.num_actions() == 1


def test_requests_are_spaced_when_the_rate_is_limited() -> None:
    with OpenAIServer() as server:
        started = time.monotonic()
        collect(server, 10, requests_per_minute=60 * 100)
        assert time.monotonic() - started >= 0.19


def test_seeds_are_sent_when_asked_for_and_differ_by_turn() -> None:
    with OpenAIServer() as server:
        collect(server, 2, send_seed=True)
    assert len({body["seed"] for body in server.bodies}) == 4


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        EndpointPolicy("m")


def test_identity_holds_what_decides_the_reply_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    policy = EndpointPolicy("m", base_url="http://x/v1", api_key_env="MY_KEY", temperature=0.3)
    assert policy.identity() == {"name": "endpoint", "model": "m", "temperature": 0.3, "extra_body": {}}
