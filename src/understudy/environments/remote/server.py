"""The server: one environment for each session, made by its name as anywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from understudy import registry
from understudy.environments.base import Environment, HasScore, HasTasks
from understudy.errors import ConfigError, UnderstudyError
from understudy.listening import listening

from .protocol import PAGE, Answer, Operation, dump_answer, read_operations

if TYPE_CHECKING:
    from aiohttp import web


@dataclass(slots=True)
class _Session:
    environment: Environment
    used_at: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: asyncio.Future[Answer] | None = None


class EnvironmentServer:
    """Serves one kind of environment.

    Args:
        name, arguments: of the environment.
        max_sessions: so many episodes at once.
        idle_seconds: a session that nobody has asked for so long is closed.

    Raises:
        ConfigError: the environment cannot be made, or a limit is not above 0.
    """

    def __init__(
        self, name: str, arguments: dict[str, Any], *, max_sessions: int = 1024, idle_seconds: float = 3600.0
    ) -> None:
        if max_sessions < 1 or not idle_seconds > 0:
            raise ConfigError(f"max_sessions is {max_sessions} and idle_seconds {idle_seconds}; both are above 0")
        self._name, self._arguments = name, arguments
        self._max_sessions, self._idle_seconds = max_sessions, idle_seconds
        self._asked = self._made()
        self._sessions: dict[str, _Session] = {}

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[str]:
        """Listen for a block; gives the URL for clients.

        Raises:
            ConfigError: the port is taken.
        """
        from aiohttp import web

        routes = [
            web.get("/info", self._info),
            web.get("/health", self._health),
            web.get("/tasks/{split}", self._tasks),
            web.post("/batch", self._batch),
        ]
        expiry = asyncio.create_task(self._expire())
        try:
            async with listening(routes, host, port) as url:
                yield url
        finally:
            expiry.cancel()
            for name in list(self._sessions):
                await self._close(name)

    def _made(self) -> Environment:
        environment: Environment = registry.create("environments", self._name, self._arguments)
        return environment

    async def _info(self, request: web.Request) -> web.Response:
        from aiohttp import web

        offers = {"has_tasks": isinstance(self._asked, HasTasks), "has_score": isinstance(self._asked, HasScore)}
        return web.json_response({"environment": self._name, "agents": list(self._asked.agents)} | offers)

    async def _health(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response({"sessions": len(self._sessions), "max_sessions": self._max_sessions})

    async def _tasks(self, request: web.Request) -> web.Response:
        from aiohttp import web

        try:
            if not isinstance(self._asked, HasTasks):
                raise ConfigError(f"{self._name} has no tasks")
            tasks = self._asked.tasks(request.match_info["split"])
            start, num = (int(request.query.get(key, default)) for key, default in (("start", 0), ("num", PAGE)))
            found = [tasks[index] for index in range(start, min(start + num, len(tasks)))]
        except (UnderstudyError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"size": len(tasks), "tasks": found})

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        """Do all operations at once; what one of them does is nothing to the others."""
        from aiohttp import web

        try:
            asked = read_operations(await request.read())
        except (ValueError, RecursionError) as error:
            return web.json_response({"error": f"this is no list of operations: {error}"}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        answers = [asyncio.ensure_future(self._answered(number, one)) for number, one in enumerate(asked)]
        for answer in asyncio.as_completed(answers):
            await response.write(await answer)
        return response

    async def _answered(self, number: int, operation: Operation) -> bytes:
        try:
            return dump_answer(number, await self._do(operation))
        except Exception as error:  # an environment is foreign code: whatever it raises is its fault
            return dump_answer(number, Answer(error=f"{type(error).__name__}: {error}"))

    async def _do(self, operation: Operation) -> Answer:
        if operation.op == "close":
            await self._close(operation.session)
            return Answer()
        session = self._session(operation)
        async with session.lock:
            session.under_way = asyncio.ensure_future(_done(session.environment, operation))
            try:
                await asyncio.wait([session.under_way])
            finally:
                session.used_at = time.monotonic()
            if session.under_way.cancelled():
                raise LookupError("the session was closed meanwhile")
            return await session.under_way

    def _session(self, operation: Operation) -> _Session:
        """Return the session of an operation; a reset opens it."""
        session = self._sessions.get(operation.session)
        if session is not None:
            return session
        if operation.op != "reset":
            raise LookupError(f"there is no session {operation.session!r}: it was closed, or nobody asked for it for "
                              f"{self._idle_seconds:g} seconds")  # fmt: skip
        if len(self._sessions) >= self._max_sessions:
            raise LookupError(
                f"all {self._max_sessions:,} sessions are taken; lower concurrency, or raise max-sessions"
            )
        self._sessions[operation.session] = session = _Session(self._made(), time.monotonic())
        return session

    async def _close(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is None:
            return
        if session.under_way is not None:
            session.under_way.cancel()
        async with session.lock:
            with suppress(Exception):  # it is over, whatever its environment makes of that
                await session.environment.close()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_seconds / 4, 30))
            now = time.monotonic()
            for name, session in list(self._sessions.items()):
                if now - session.used_at > self._idle_seconds and not session.lock.locked():
                    await self._close(name)


async def _done(environment: Environment, operation: Operation) -> Answer:
    if operation.op == "reset":
        return Answer(await environment.reset(operation.task, seed=operation.seed))
    if operation.op == "step":
        return Answer(await environment.step(operation.actions))
    if not (isinstance(environment, HasScore) and operation.episode is not None):
        raise LookupError("there is nothing to judge, or nobody who does")
    return Answer(score=await environment.score(operation.episode))


async def serve(server: EnvironmentServer, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Listen until cancelled."""
    async with server.listening(host, port) as url:
        on_ready(url)
        await asyncio.Event().wait()
