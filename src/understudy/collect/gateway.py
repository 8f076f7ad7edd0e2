"""The recording endpoint: agents of other people's programs, who own the loop, are collected by what they ask a model.

A program is pointed at it in place of the model's server. Each call is passed on as it is, and its answer given back;
both join an episode, which is in the journal before the program has the answer. Calls to ``/episodes/NAME/v1/…`` are of
the episode of that name; calls to ``/v1/…`` find theirs by the conversation that they go on with, or begin one.

An episode's result is the program's to tell: ``POST /episodes/NAME/v1/result``. Where nobody tells it, it is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, EnvironmentFault, FormatError
from understudy.listening import listening
from understudy.policies.server_tokens import ASKING_FOR_TOKENS, read_sampled
from understudy.types import Episode, Trajectory, message_from_openai, tools_from_openai

from .calls import Call, Conversations, spoken
from .gateway_config import GatewayConfig
from .journal import Journal
from .recorder import finite_number, truth

if TYPE_CHECKING:
    from aiohttp import ClientSession, web

OPENAI = "https://api.openai.com/v1"
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, FormatError)
UNWRITABLE = (FormatError, RecursionError, OSError)
RESULT_KEYS = ("reward", "success", "task", "seed", "stop_reason", "error", "metadata")
MAX_OPEN = 1024
"""Episodes that are kept in memory; others are read from the journal when they go on."""


class Gateway:
    """The endpoint.

    Args:
        config: where calls go, and what is recorded of all.
        journal: where episodes are written down.
    """

    def __init__(self, config: GatewayConfig, journal: Journal) -> None:
        self.names = dict.fromkeys(journal.ids)
        self.num_calls = self.num_failed = 0
        self._config = config
        self._journal = journal
        self._open: dict[str, tuple[Episode, Conversations]] = {}
        self._by_end = {
            end: name for name in self.names for end in Conversations(journal.episode(name).trajectories[0].turns).ends
        }
        self._session: ClientSession | None = None
        upstream = config.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self._upstream = upstream.rstrip("/")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen for a block; gives the base URL for programs."""
        from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

        routes: list[web.AbstractRouteDef] = [web.get("/health", self._health)]
        for prefix in ("/v1", "/episodes/{name}/v1"):
            routes.append(web.post(f"{prefix}/chat/completions", self._complete))
            routes.append(web.get(f"{prefix}/models", self._models))
        routes.append(web.post("/episodes/{name}/v1/result", self._result))
        timeout = ClientTimeout(total=self._config.timeout_seconds)
        async with (
            ClientSession(timeout=timeout, connector=TCPConnector(limit=0)) as self._session,
            listening(routes, self._config.host, self._config.port) as url,
        ):
            port = url.rpartition(":")[2]
            if self._upstream in (f"{url}/v1", f"http://localhost:{port}/v1", f"http://127.0.0.1:{port}/v1"):
                raise ConfigError(f"base_url: {self._upstream} is this endpoint itself; name the model's server")
            yield f"{url}/v1"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        """Pass a call on, write it down, and give the answer back, as a stream where one was asked for."""
        from aiohttp import ClientError, web

        try:
            body = json.loads(await request.read())
            messages = tuple(message_from_openai(m, f"messages[{i}]") for i, m in enumerate(body["messages"]))
            tools = tools_from_openai(body.get("tools") or body.get("functions"))
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        except UNREADABLE as error:
            return _refusal(400, f"the request cannot be recorded: {type(error).__name__}: {error}")
        self.num_calls += 1
        try:
            assert self._session is not None
            url, headers = f"{self._upstream}/chat/completions", self._headers(request)
            async with self._session.post(url, json=self._asked(body), headers=headers) as answer:
                content = await answer.read()
        except (ClientError, TimeoutError) as error:
            return self._failed(_no_answer(self._upstream, error))
        if answer.status != 200:
            wait = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
            passed = web.Response(status=answer.status, body=content, content_type=answer.content_type, headers=wait)
            return self._failed(passed)
        try:
            reply = json.loads(content)
            calls = [_call(messages, tools, body, reply, choice) for choice in reply["choices"]]
            self._check(calls)
        except UNREADABLE as error:
            return self._failed(
                _refusal(502, f"{self._upstream} gave a broken answer: {type(error).__name__}: {error}")
            )
        if request.transport is None or request.transport.is_closing():
            return self._failed(_refusal(499, "the program has not waited for the answer"))
        try:
            self._record(request.match_info.get("name"), calls)
        except UNWRITABLE as error:
            return self._failed(_refusal(500, f"the call cannot be recorded: {error}"))
        if body.get("stream"):
            return await _stream(request, reply, with_usage=with_usage)
        return web.Response(body=content, content_type="application/json")

    def _asked(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        asked |= {"model": self._config.model} if self._config.model is not None else {}
        return asked | ASKING_FOR_TOKENS[self._config.token_ids] | self._config.extra_body

    def _check(self, calls: list[Call]) -> None:
        if not calls:
            raise ValueError("it has no choices")
        if self._config.token_ids != "none" and any(call.sampled is None for call in calls):
            raise ValueError(
                f"it has no token ids in the way of {self._config.token_ids}; is the server recent enough?"
            )

    def _failed(self, response: web.Response) -> web.Response:
        self.num_failed += 1
        return response

    def _record(self, name: str | None, calls: list[Call]) -> None:
        """Add the answers of one call to their episode, and write it down.

        Raises:
            FormatError, RecursionError, OSError: it cannot be written. Then nothing has changed.
        """
        name = name or self._name(calls[0])
        episode, conversations = self._episode(name)
        for call in calls:
            conversations.add(call)
        (trajectory,) = episode.trajectories
        model = calls[-1].annotations.get("model")
        turns = tuple(conversations.turns)
        policy = str(model) if model is not None else trajectory.policy
        self._keep(replace(episode, trajectories=(replace(trajectory, turns=turns, policy=policy),)), conversations)
        self._by_end |= dict.fromkeys(conversations.ends[-len(calls) :], name)

    def _name(self, call: Call) -> str:
        """Return the episode that a call without a name goes on with, or a new one."""
        for end in reversed(spoken(call.messages)[1:]):
            if end in self._by_end:
                return self._by_end[end]
        numbers = itertools.count(len(self.names) + 1)
        return next(name for name in (f"episode-{number:05}" for number in numbers) if name not in self.names)

    def _episode(self, name: str) -> tuple[Episode, Conversations]:
        """Return an episode as it stands. Whoever changes it keeps it, or it is read anew."""
        if (there := self._open.pop(name, None)) is not None:
            return there
        if name in self.names:
            episode = self._journal.episode(name)
        else:
            episode = Episode(
                id=name,
                trajectories=(Trajectory(),),
                environment=self._config.environment,
                split=self._config.split,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        return episode, Conversations(episode.trajectories[0].turns)

    def _keep(self, episode: Episode, conversations: Conversations) -> None:
        self._journal.append(episode)
        self.names[episode.id] = None
        self._open[episode.id] = (episode, conversations)
        if len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]

    async def _result(self, request: web.Request) -> web.Response:
        """Take what a program says of an episode that is over."""
        from aiohttp import web

        name = request.match_info["name"]
        if name not in self.names:
            return _refusal(404, f"there is no episode {name!r}: it begins with its first call")
        try:
            changed = _checked_result(json.loads(await request.read()))
        except (ValueError, RecursionError, EnvironmentFault) as error:
            return _refusal(400, str(error))
        episode, conversations = self._episode(name)
        metadata = episode.metadata | changed.pop("metadata", {})
        (trajectory,) = episode.trajectories
        told = {key: changed[key] for key in ("reward", "success") if key in changed}
        trajectories = (replace(trajectory, **told),)
        try:
            self._keep(replace(episode, **changed, metadata=metadata, trajectories=trajectories), conversations)
        except UNWRITABLE as error:
            return _refusal(500, f"the result cannot be recorded: {error}")
        return web.json_response({"id": name})

    async def _models(self, request: web.Request) -> web.Response:
        from aiohttp import ClientError, web

        try:
            assert self._session is not None
            async with self._session.get(f"{self._upstream}/models", headers=self._headers(request)) as answer:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
        except (ClientError, TimeoutError) as error:
            return _no_answer(self._upstream, error)

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
        first = {"index": 0} | choice | {"delta": delta, "finish_reason": None}
        del first["message"]
        last = {"index": first["index"], "delta": {}, "finish_reason": choice.get("finish_reason")}
        for piece in (first, last):
            chunk = head | {"choices": [piece]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    if with_usage:
        await response.write(f"data: {json.dumps(head | {'choices': [], 'usage': reply.get('usage')})}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _no_answer(upstream: str, error: Exception) -> web.Response:
    return _refusal(502, f"{upstream} gives no answer: {type(error).__name__}: {error}")


def _refusal(status: int, text: str) -> web.Response:
    from aiohttp import web

    return web.json_response({"error": {"message": text, "type": "understudy", "code": None}}, status=status)


async def serve(gateway: Gateway, on_ready: Callable[[str], None]) -> None:
    """Listen until cancelled."""
    async with gateway.listening() as base_url:
        on_ready(base_url)
        await asyncio.Event().wait()
