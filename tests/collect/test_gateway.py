"""The recording endpoint, with OpenAI's own client as the program that owns the loop."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI, OpenAIError, RateLimitError

from tests.openai_server import OpenAIServer
from understudy.cli.main import main
from understudy.collect.calls import Call, Conversations
from understudy.collect.gateway import Gateway
from understudy.collect.gateway_config import GatewayConfig
from understudy.collect.journal import Journal
from understudy.collect.recording import record
from understudy.errors import ConfigError, FormatError
from understudy.formats import read_episodes
from understudy.types import Episode, ImagePart, Message, TextPart, Tool, ToolCall, message_from_openai

PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
TOOL = {"type": "function", "function": {"name": "calculator", "description": "Computes.", "parameters": PARAMETERS}}


@contextmanager
def listening(folder: Path, **config: Any) -> Iterator[tuple[Gateway, str]]:
    """Listen in a thread, as a recording does, and give the base URL."""
    settings = GatewayConfig(output_dir=str(folder), port=0, **config)
    gateway = Gateway(settings, Journal(folder / "_journal.jsonl"))
    ready: list[str] = []
    is_ready, stopped = threading.Event(), threading.Event()

    async def main() -> None:
        async with gateway.listening() as base_url:
            ready.append(base_url)
            is_ready.set()
            await asyncio.to_thread(stopped.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert is_ready.wait(10)
    try:
        yield gateway, ready[0]
    finally:
        stopped.set()
        thread.join(10)


def recorded(folder: Path) -> list[Episode]:
    journal = Journal(folder / "_journal.jsonl")
    return [journal.episode(name) for name in journal.ids]


def harness(base_url: str, expression: str, *, stream: bool = False) -> list[dict[str, Any]]:
    """Own the loop: ask, run the tool, ask again, until the model says something; return what was said."""
    client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": f"Compute {expression}."}]
    while messages[-1]["role"] != "assistant":
        asked = {"model": "m", "messages": messages, "tools": [TOOL], "temperature": 0.5}
        message = streamed(client, asked) if stream else client.chat.completions.create(**asked).choices[0].message
        messages.append(json.loads(message.model_dump_json(exclude_none=True)))
        for call in message.tool_calls or ():
            result = str(eval(json.loads(call.function.arguments)["expression"]))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return messages


def streamed(client: OpenAI, asked: dict[str, Any]) -> Any:
    with client.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion().choices[0].message


def post(url: str, content: Any) -> tuple[int, dict[str, Any]]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data)) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def said(episode: Episode) -> list[tuple[str, str]]:
    return [(message.role, message.text()) for message in episode.trajectories[0].messages()]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_loop_that_others_own_becomes_one_episode_each(tmp_path: Path, named: bool, stream: bool) -> None:
    with OpenAIServer() as server, listening(tmp_path, base_url=server.base_url, environment="sums") as (_, base_url):
        for name, expression in (("a", "1+1"), ("b", "2*3")):
            url = base_url.replace("/v1", f"/episodes/{name}/v1") if named else base_url
            assert harness(url, expression, stream=stream)[-1]["content"] == f"The answer is {eval(expression)}."
    first, second = recorded(tmp_path)
    assert [first.id, second.id] == (["a", "b"] if named else ["episode-00001", "episode-00002"])
    expected = [("user", "Compute 1+1."), ("assistant", ""), ("tool", "2"), ("assistant", "The answer is 2.")]
    assert said(first) == expected
    (trajectory,) = first.trajectories
    assert [turn.parent for turn in trajectory.turns] == [None, 0]
    assert [tool.definition for tool in trajectory.tools()] == [TOOL]
    assert trajectory.policy == "m"
    assert trajectory.turns[0].annotations["sampling"] == {"temperature": 0.5}
    assert trajectory.turns[1].annotations["usage"] == {"prompt_tokens": 30, "completion_tokens": 5}
    assert (first.environment, first.split, first.success, first.reward) == ("sums", "train", None, None)


def test_calls_are_passed_on_with_what_the_config_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    sampled = {"prompt_token_ids": [1, 2], "choice": {"token_ids": [3, 4]}}
    with OpenAIServer(extra=lambda body: json.loads(json.dumps(sampled))) as server:
        config = {"base_url": server.base_url, "model": "other", "token_ids": "vllm", "extra_body": {"top_k": 5}}
        with listening(tmp_path, **config) as (_, base_url):
            harness(base_url, "1+1")
    assert all(body["model"] == "other" and body["top_k"] == 5 for body in server.bodies)
    assert all(body["return_token_ids"] and "stream" not in body for body in server.bodies)
    tokens = [turn.sampled for turn in recorded(tmp_path)[0].trajectories[0].turns]
    assert [(one.prompt_ids, one.output_ids) for one in tokens if one] == [((1, 2), (3, 4))] * 2


def test_the_program_tells_how_an_episode_ended(tmp_path: Path) -> None:
    with OpenAIServer() as server, listening(tmp_path, base_url=server.base_url) as (_, base_url):
        url = base_url.replace("/v1", "/episodes/a/v1")
        assert post(f"{url}/result", {"reward": 1})[0] == 404
        harness(url, "1+1")
        told = {"reward": 0.5, "success": True, "task": {"n": 1}, "stop_reason": "solved", "metadata": {"k": "v"}}
        assert post(f"{url}/result", told) == (200, {"id": "a"})
        for bad, reason in (
            ({"rewrad": 1}, "a result has no 'rewrad'"),
            ({"reward": "high"}, "no finite number"),
            ({"success": "yes"}, "neither true nor false"),
            ({"metadata": []}, "metadata is []"),
            ([1], "a result is an object"),
            (b"{", "Expecting"),
        ):
            status, reply = post(f"{url}/result", bad)
            assert status == 400
            assert reason in reply["error"]["message"]
    (episode,) = recorded(tmp_path)
    assert (episode.reward, episode.success, episode.task, episode.stop_reason) == (0.5, True, {"n": 1}, "solved")
    assert (episode.trajectories[0].reward, episode.trajectories[0].success) == (0.5, True)
    assert episode.metadata["k"] == "v"


@pytest.mark.parametrize("fault", ["429", "500", "cut", "malformed"])
def test_a_call_that_fails_is_told_to_the_program_and_in_no_episode(tmp_path: Path, fault: str) -> None:
    with (
        OpenAIServer(faults=lambda number: fault if number == 0 else None) as server,
        listening(tmp_path, base_url=server.base_url) as (gateway, base_url),
    ):
        with pytest.raises(OpenAIError):
            harness(base_url, "1+1")
        assert (gateway.num_failed, list(gateway.names)) == (1, [])
        harness(base_url, "1+1")
        assert (gateway.num_calls, gateway.num_failed) == (3, 1)
    assert len(recorded(tmp_path)) == 1


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with OpenAIServer() as server, listening(tmp_path, base_url=server.base_url) as (_, base_url):
        for body in (b"nonsense", {"model": "m"}, {"messages": [{"content": "no role"}]}):
            status, reply = post(f"{base_url}/chat/completions", body)
            assert status == 400
            assert "cannot be recorded" in reply["error"]["message"]
        assert server.num_requests == 0


def test_an_episode_goes_on_after_a_restart_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    def patient(body: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": f"answer {len(body['messages'])}"}

    messages: list[dict[str, Any]] = [{"role": "user", "content": "0"}]
    for round in range(2):
        with OpenAIServer(patient) as server, listening(tmp_path, base_url=server.base_url) as (gateway, base_url):
            assert len(gateway.names) == round
            messages = ask(base_url.replace("/v1", "/episodes/a/v1"), messages)
            assert len(said(recorded(tmp_path)[0])) == 2 * round + 2, "it is written before the program goes on"
    assert [turn.parent for turn in recorded(tmp_path)[0].trajectories[0].turns] == [None, 0]


def texts(*parts: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if k % 2 else "user", part) for k, part in enumerate(parts))


def test_forks_rewritten_contexts_and_other_tools_are_what_they_are() -> None:
    conversations = Conversations()
    other = (Tool(TOOL),)
    calls = [
        (texts("a"), (), "b"),
        (texts("a", "b", "c"), (), "d"),
        (texts("a", "b", "C"), (), "D"),  # taken up again from an earlier point
        (texts("summary of a to d"), (), "e"),  # compacted
        (texts("a", "b", "c"), other, "d"),  # other tools
        (texts("a"), (), "b2"),  # asked again
    ]
    for messages, tools, answer in calls:
        conversations.add(Call(messages, tools, Message("assistant", answer)))
    assert [turn.parent for turn in conversations.turns] == [None, 0, 0, None, None, None]
    assert [len(turn.observation) for turn in conversations.turns] == [1, 1, 1, 1, 3, 1]
    again = Conversations(conversations.turns)
    again.add(Call(texts("a", "b", "c", "d", "e"), (), Message("assistant", "f")))
    assert again.turns[-1].parent == 1


def test_arguments_that_are_written_anew_are_the_same_and_reasoning_that_is_dropped_was_not_shown() -> None:
    answer = Message("assistant", None, reasoning_content="hm", tool_calls=(ToolCall("f", '{"x":1}', "1"),))
    repeated = Message("assistant", "", reasoning_content="hm", tool_calls=(ToolCall("f", {"x": 1}, "1"),))
    result = Message("tool", "r", tool_call_id="1")
    for message, parent, observation in (
        (repeated, 0, (result,)),
        (
            replace(repeated, reasoning_content=None),
            None,
            (*texts("a"), replace(repeated, reasoning_content=None), result),
        ),
    ):
        conversations = Conversations()
        conversations.add(Call(texts("a"), (), answer))
        conversations.add(Call((*texts("a"), message, result), (), Message("assistant", "b")))
        assert (conversations.turns[1].parent, conversations.turns[1].observation) == (parent, observation)


def test_two_images_are_two_conversations() -> None:
    asked = [Message("user", (TextPart("what is it?"), ImagePart(f"http://x/{n}.png"))) for n in range(2)]
    conversations = Conversations()
    for image in asked:
        conversations.add(Call((image,), (), Message("assistant", "a cat")))
    for image in asked:
        conversations.add(Call((image, *texts("", "a cat", "sure?")[1:]), (), Message("assistant", "yes")))
    assert [turn.parent for turn in conversations.turns] == [None, None, 0, 1]


def thinking(body: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": f"answer {len(body['messages'])}", "reasoning_content": "hm"}


def ask(base_url: str, messages: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    """Ask, and return the conversation with the answer, its reasoning dropped, and what is asked next."""
    client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
    content = client.chat.completions.create(model="m", messages=messages, **settings).choices[0].message.content
    return [*messages, {"role": "assistant", "content": content}, {"role": "user", "content": "on"}]


def test_a_conversation_finds_its_episode_with_other_tools_without_reasoning_and_after_a_restart(
    tmp_path: Path,
) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "0"}]
    for tools in ([TOOL], None):
        with OpenAIServer(thinking) as server, listening(tmp_path, base_url=server.base_url) as (_, base_url):
            messages = ask(base_url, messages, **({"tools": tools} if tools else {}))
            messages = ask(base_url, messages)
    (episode,) = recorded(tmp_path)
    assert len(episode.trajectories[0].turns) == 4
    assert episode.trajectories[0].messages() == [
        *(message_from_openai(message) for message in messages[:-2]),
        Message("assistant", "answer 7", reasoning_content="hm"),
    ]


def test_an_episode_of_its_own_gets_a_name_that_is_free(tmp_path: Path) -> None:
    with OpenAIServer(thinking) as server, listening(tmp_path, base_url=server.base_url) as (_, base_url):
        ask(base_url.replace("/v1", "/episodes/episode-00002/v1"), [{"role": "user", "content": "a"}])
        ask(base_url, [{"role": "user", "content": "b"}])
    assert [episode.id for episode in recorded(tmp_path)] == ["episode-00002", "episode-00003"]


def test_many_at_once_stay_apart_also_those_that_are_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.collect.gateway.MAX_OPEN", 2)
    numbers = range(8)
    with OpenAIServer() as server, listening(tmp_path, base_url=server.base_url) as (gateway, base_url):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: harness(base_url, f"{n}+{n}"), numbers))
        assert gateway.num_calls == 16
    found = sorted(said(episode)[-1][1] for episode in recorded(tmp_path))
    assert found == sorted(f"The answer is {n + n}." for n in numbers)
    assert all(len(episode.trajectories[0].turns) == 2 for episode in recorded(tmp_path))


def test_an_answer_that_nobody_waited_for_is_in_no_episode(tmp_path: Path) -> None:
    asked, gone = threading.Event(), threading.Event()

    def slow(body: Any) -> dict[str, Any]:
        asked.set()
        assert gone.wait(10)
        return {"role": "assistant", "content": "too late"}

    with OpenAIServer(slow) as server, listening(tmp_path, base_url=server.base_url) as (gateway, base_url):
        host, port = base_url.split("/")[2].split(":")
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}]})
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body.encode())
            assert asked.wait(10)
        with urllib.request.urlopen(base_url.replace("/v1", "/health")):
            gone.set()  # the endpoint has seen by now that the connection has ended
        deadline = time.monotonic() + 10
        while not gateway.num_failed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (gateway.num_calls, gateway.num_failed, list(gateway.names)) == (1, 1, [])


def test_what_a_program_waits_by_and_logs_of_an_answer_is_passed_on(tmp_path: Path) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    with (
        OpenAIServer(
            thinking,
            faults=lambda number: "429" if number == 0 else None,
            extra=lambda body: {"choice": {"logprobs": logprobs}},
        ) as server,
        listening(tmp_path, base_url=server.base_url) as (_, base_url),
    ):
        client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "a"}], "logprobs": True}
        with pytest.raises(RateLimitError) as failed:
            client.chat.completions.create(**asked)
        assert failed.value.response.headers["Retry-After"] == "0.02"
        chunks = list(client.chat.completions.create(**asked, stream=True))
        assert [chunk.choices[0].logprobs is not None for chunk in chunks] == [True, False]
        assert (chunks[0].choices[0].logprobs.content or [])[0].logprob == -0.5


def test_a_server_without_the_token_ids_that_are_wanted_is_no_silent_loss(tmp_path: Path) -> None:
    with (
        OpenAIServer() as server,
        listening(tmp_path, base_url=server.base_url, token_ids="vllm") as (gateway, base_url),
    ):
        with pytest.raises(OpenAIError, match="no token ids in the way of vllm"):
            ask(base_url, [{"role": "user", "content": "a"}])
        assert not gateway.names


def test_a_call_that_cannot_be_written_is_refused_and_the_episode_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, episode: Episode) -> None:
        raise FormatError("the row cannot be written")

    first: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
    with OpenAIServer(thinking) as server, listening(tmp_path, base_url=server.base_url) as (gateway, base_url):
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append", full)
            with pytest.raises(OpenAIError, match="cannot be recorded"):
                ask(base_url, first)
            assert not gateway.names
        second = ask(base_url, first)
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "append", full)
            with pytest.raises(OpenAIError, match="cannot be recorded"):
                ask(base_url, second)
        ask(base_url, second)
    assert [len(episode.trajectories[0].turns) for episode in recorded(tmp_path)] == [2]


def test_the_command_records_until_it_is_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "harness"
    with OpenAIServer() as server:
        for round in range(2):
            command = [sys.executable, "-m", "understudy", "record", f"output_dir={folder}", "port=0"]
            command.append(f"base_url={server.base_url}")
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("listening at http://127.0.0.1:")
            harness(line.split()[2], f"{round}+1")
            process.send_signal(signal.SIGINT if round else signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(30) == 0, rest
            assert f"2 calls; {round + 1} episodes are in" in rest
    assert len(list(read_episodes(folder))) == 2
    (stats,) = folder.glob("*_stats.json")
    found = json.loads(stats.read_text())
    assert (found["num_episodes"], found["num_success_known"]) == (2, 0)
    assert not (folder / "_journal.jsonl").exists()


def test_a_call_under_way_does_not_hold_up_the_end(tmp_path: Path) -> None:
    asked, ended = threading.Event(), threading.Event()

    def never(body: Any) -> dict[str, Any]:
        asked.set()
        ended.wait(30)
        return {"role": "assistant", "content": "too late"}

    with OpenAIServer(never) as server:
        command = [sys.executable, "-m", "understudy", "record", f"output_dir={tmp_path / 'x'}", "port=0"]
        process = subprocess.Popen([*command, f"base_url={server.base_url}"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        base_url = process.stderr.readline().split()[2]
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(ask, base_url, [{"role": "user", "content": "a"}])
            assert asked.wait(20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert "1 calls; no episodes" in process.stderr.read()
            assert isinstance(call.exception(), OpenAIError)
        ended.set()


def test_the_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    assert (
        main(["collect", "environment.name=math", "policy.name=expert", "num_episodes=2", f"output_dir={tmp_path}"])
        == 0
    )
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="holds no recording"):
        record(GatewayConfig(output_dir=str(tmp_path), port=0), lambda base_url: None)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_it_does_not_pass_calls_on_to_itself(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = GatewayConfig(output_dir=str(tmp_path), port=port, base_url=f"http://localhost:{port}/v1/")
    with pytest.raises(ConfigError, match="is this endpoint itself"):
        record(config, lambda base_url: None)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = GatewayConfig(output_dir=str(tmp_path), port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"cannot listen at 127\.0\.0\.1:.*name another port"):
            record(config, lambda base_url: None)
