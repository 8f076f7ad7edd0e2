"""The recording endpoint: agents of other people's programs, who own the loop, are collected by what they ask a model.

A program is pointed at it in place of the model's server. Each call is passed on as it is, and its answer given back;
both join an episode, which is in the journal before the program has the answer. Calls to ``/episodes/NAME/v1/…`` are of
the episode of that name; calls to ``/v1/…`` find theirs by the conversation that they go on with, or begin one.

An episode's result is the program's to tell: ``POST /episodes/NAME/v1/result``. Where nobody tells it, it is unknown.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, EnvironmentFault, FormatError
from understudy.policies.server_tokens import ASKING_FOR_TOKENS, read_sampled
from understudy.types import Episode, Trajectory, message_from_openai, tools_from_openai

from .calls import Call, Conversations, prefixes
from .gateway_config import GatewayConfig
from .journal import Journal
from .recorder import finite_number, truth

if TYPE_CHECKING:
    from aiohttp import ClientSession, web

OPENAI = "https://api.openai.com/v1"
RESULT_KEYS = ("reward", "success", "task", "seed", "stop_reason", "error", "metadata")
MAX_BODY_BYTES = 256 * 2**20


class Gateway:
    """The endpoint.

    Args:
        config: where calls go, and what is recorded of all.
        journal: where episodes are written down.
    """

    def __init__(self, config: GatewayConfig, journal: Journal) -> None:
        self.names = journal.ids
        self.num_calls = self.num_failed = 0
        self._config = config
        self._journal = journal
        self._open: dict[str, tuple[Episode, Conversations]] = {}
        self._by_end: dict[str, str] = {}
        self._session: ClientSession | None = None
        upstream = config.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self._upstream = upstream.rstrip("/")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen for a block; gives the base URL for programs."""
        from aiohttp import ClientSession, ClientTimeout, web

        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for prefix in ("/v1", "/episodes/{name}/v1"):
            app.router.add_post(f"{prefix}/chat/completions", self._complete)
            app.router.add_get(f"{prefix}/models", self._models)
        app.router.add_post("/episodes/{name}/v1/result", self._result)
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        async with ClientSession(timeout=ClientTimeout(total=self._config.timeout_seconds)) as self._session:
            site = web.TCPSite(runner, self._config.host, self._config.port)
            try:
                await self._start(site)
                host, port = runner.addresses[0][:2]
                yield f"http://{host}:{port}/v1"
            finally:
                await runner.cleanup()

    async def _start(self, site: web.TCPSite) -> None:
        try:
            await site.start()
        except OSError as error:
            place = f"{self._config.host}:{self._config.port}"
            raise ConfigError(f"cannot listen at {place}: {error.strerror}; name another port, or 0") from error

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        """Pass a call on, write it down, and give the answer back, as a stream where one was asked for."""
        from aiohttp import ClientError, web

        try:
            body = json.loads(await request.read())
            messages = tuple(message_from_openai(m, f"messages[{i}]") for i, m in enumerate(body["messages"]))
            tools = tools_from_openai(body.get("tools"))
        except (ValueError, KeyError, TypeError, FormatError) as error:
            return _refusal(400, f"the request cannot be recorded: {type(error).__name__}: {error}")
        asked = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        asked |= {"model": self._config.model} if self._config.model is not None else {}
        asked |= ASKING_FOR_TOKENS[self._config.token_ids] | self._config.extra_body
        self.num_calls += 1
        try:
            assert self._session is not None
            url, headers = f"{self._upstream}/chat/completions", self._headers(request)
            async with self._session.post(url, json=asked, headers=headers) as answer:
                status, content = answer.status, await answer.read()
        except (ClientError, TimeoutError) as error:
            self.num_failed += 1
            return _refusal(502, f"{self._upstream} gives no answer: {type(error).__name__}: {error}")
        if status != 200:
            self.num_failed += 1
            return web.Response(status=status, body=content, content_type="application/json")
        try:
            reply = json.loads(content)
            calls = [_call(messages, tools, body, reply, choice) for choice in reply["choices"]]
            if not calls:
                raise ValueError("it has no choices")
        except (ValueError, LookupError, TypeError, AttributeError, FormatError) as error:
            self.num_failed += 1
            return _refusal(502, f"{self._upstream} gave a broken answer: {type(error).__name__}: {error}")
        self._record(request.match_info.get("name"), calls)
        if not body.get("stream"):
            return web.json_response(reply)
        return await _stream(request, reply, with_usage=bool((body.get("stream_options") or {}).get("include_usage")))

    def _record(self, name: str | None, calls: list[Call]) -> None:
        """Add the answers of one call to their episode, and write it down."""
        if name is None:
            known = prefixes(calls[0].messages, calls[0].tools)[1:]
            name = next((self._by_end[end] for end in reversed(known) if end in self._by_end), None)
        if name is None:
            name = f"episode-{len(self.names) + 1:05}"
        episode, conversations = self._episode(name)
        for call in calls:
            self._by_end[conversations.add(call)] = name
        (trajectory,) = episode.trajectories
        model = calls[-1].annotations.get("model")
        turns = tuple(conversations.turns)
        policy = str(model) if model is not None else trajectory.policy
        self._keep(replace(episode, trajectories=(replace(trajectory, turns=turns, policy=policy),)), conversations)

    def _episode(self, name: str) -> tuple[Episode, Conversations]:
        if name not in self._open:
            if name in self.names:
                episode = self._journal.episode(name)
            else:
                self.names.append(name)
                episode = Episode(
                    id=name,
                    trajectories=(Trajectory(),),
                    environment=self._config.environment,
                    split=self._config.split,
                    created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                )
            self._open[name] = (episode, Conversations(episode.trajectories[0].turns))
        return self._open[name]

    def _keep(self, episode: Episode, conversations: Conversations) -> None:
        self._journal.append(episode)
        self._open[episode.id] = (episode, conversations)

    async def _result(self, request: web.Request) -> web.Response:
        """Take what a program says of an episode that is over."""
        from aiohttp import web

        name = request.match_info["name"]
        if name not in self.names:
            return _refusal(404, f"there is no episode {name!r}: it begins with its first call")
        try:
            given = json.loads(await request.read())
            changed = _checked_result(given)
        except (ValueError, EnvironmentFault) as error:
            return _refusal(400, str(error))
        episode, conversations = self._episode(name)
        metadata = episode.metadata | changed.pop("metadata", {})
        (trajectory,) = episode.trajectories
        told = {key: changed[key] for key in ("reward", "success") if key in changed}
        trajectories = (replace(trajectory, **told),)
        self._keep(replace(episode, **changed, metadata=metadata, trajectories=trajectories), conversations)
        return web.json_response({"id": name})

    async def _models(self, request: web.Request) -> web.Response:
        from aiohttp import ClientError, web

        try:
            assert self._session is not None
            async with self._session.get(f"{self._upstream}/models", headers=self._headers(request)) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
        except (ClientError, TimeoutError) as error:
            return _refusal(502, f"{self._upstream} gives no answer: {type(error).__name__}: {error}")

    async def _health(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response({"episodes": len(self.names), "calls": self.num_calls, "failed": self.num_failed})

    def _headers(self, request: web.Request) -> dict[str, str]:
        key = os.environ.get(self._config.api_key_env)
        given = f"Bearer {key}" if key else request.headers.get("Authorization")
        return {"Authorization": given} if given else {}


def _call(
    messages: tuple[Any, ...], tools: tuple[Any, ...], body: Mapping[str, Any], reply: Any, choice: Mapping[str, Any]
) -> Call:
    """Return one answer as what is recorded of it."""
    message = {key: value for key, value in choice["message"].items() if value is not None}
    usage = reply.get("usage") or {}
    asked = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")
    annotations = {
        "model": reply.get("model") or body.get("model"),
        "finish_reason": choice.get("finish_reason"),
        "usage": {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if usage.get(name) is not None},
        "sampling": {name: body[name] for name in asked if body.get(name) is not None},
    }
    noted = {name: value for name, value in annotations.items() if value}
    action = message_from_openai({"role": "assistant"} | message)
    return Call(messages, tools, action, read_sampled(reply, choice), noted)


def _checked_result(given: Any) -> dict[str, Any]:
    """Return what a program told of an episode.

    Raises:
        ValueError: it is no object, has a key that means nothing, or a value of another kind.
    """
    if not isinstance(given, dict):
        raise ValueError(f"a result is an object with some of {', '.join(RESULT_KEYS)}")
    unknown = [key for key in given if key not in RESULT_KEYS]
    if unknown:
        raise ValueError(f"a result has no {unknown[0]!r}; known: {', '.join(RESULT_KEYS)}")
    changed = dict(given)
    if given.get("reward") is not None:
        changed["reward"] = finite_number(given["reward"], "the reward")
    changed["success"] = truth(given.get("success"), "the success")
    kinds = {"metadata": dict, "stop_reason": str | None, "error": str | None, "seed": int | None}
    for key, kind in kinds.items():
        if key in given and not isinstance(given[key], kind):
            raise ValueError(f"{key} is {given[key]!r:.100}, which it cannot be")
    return {key: value for key, value in changed.items() if key in given}


async def _stream(request: web.Request, reply: Mapping[str, Any], *, with_usage: bool) -> web.StreamResponse:
    """Give an answer back as a stream of one piece for each choice."""
    from aiohttp import web

    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    head = {key: reply[key] for key in ("id", "created", "model") if key in reply} | {"object": "chat.completion.chunk"}
    for choice in reply["choices"]:
        delta = dict(choice["message"])
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": i} | call for i, call in enumerate(delta["tool_calls"])]
        index = choice.get("index", 0)
        for piece, reason in ((delta, None), ({}, choice.get("finish_reason"))):
            chunk = head | {"choices": [{"index": index, "delta": piece, "finish_reason": reason}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    if with_usage:
        await response.write(f"data: {json.dumps(head | {'choices': [], 'usage': reply.get('usage')})}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _refusal(status: int, text: str) -> web.Response:
    from aiohttp import web

    return web.json_response({"error": {"message": text, "type": "understudy", "code": None}}, status=status)


async def serve(gateway: Gateway, on_ready: Callable[[str], None]) -> None:
    """Listen until cancelled."""
    async with gateway.listening() as base_url:
        on_ready(base_url)
        await asyncio.Event().wait()
