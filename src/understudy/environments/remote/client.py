"""The client: an environment that is elsewhere. What episodes ask for in the same moment goes as one request."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
import uuid
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from understudy.environments.base import Score, Step
from understudy.environments.tasks import LazyTasks
from understudy.errors import ConfigError, EnvironmentFault
from understudy.listening import MAX_BODY_BYTES
from understudy.types import JSON, Episode, Message

from .protocol import PAGE, Answer, Operation, dump_operations, read_answer


class RemoteEnvironment:
    """An environment that `understudy serve` serves.

    Args:
        url: such as ``http://otherhost:8200``.
        timeout_seconds: for one operation, and for the server's first answer.

    Raises:
        ConfigError: nobody answers there.
    """

    def __init__(self, *, url: str, timeout_seconds: float = 600.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        facts = _get(f"{self._url}/info", timeout_seconds)
        self.agents: tuple[str, ...] = tuple(facts["agents"])
        self._session: str | None = None
        if facts["has_tasks"]:  # callers ask for both with isinstance
            self.tasks = self._tasks
        if facts["has_score"]:
            self.score = self._score

    def _tasks(self, split: str) -> Sequence[JSON]:
        """Return the tasks of a split; they come when they are asked for.

        Raises:
            ConfigError: there is no such split.
        """
        return RemoteTasks(f"{self._url}/tasks/{split}", self._timeout_seconds)

    async def reset(self, task: JSON = None, *, seed: int | None = None) -> Step:
        """Start an episode, in a session of its own."""
        await self.close()
        self._session = uuid.uuid4().hex
        return await self._do(Operation("reset", self._session, task, seed))

    async def step(self, actions: Mapping[str, Message]) -> Step:
        """Take the agents' actions."""
        return await self._do(Operation("step", self._under_way(), actions=dict(actions)))

    async def _score(self, episode: Episode) -> Score:
        """Let the environment judge an episode."""
        answer = await self._batcher().do(Operation("score", self._under_way(), episode=episode))
        if answer.score is None:
            raise EnvironmentFault(f"{self._url}: {answer.error}")
        return answer.score

    async def close(self) -> None:
        """Give the session back."""
        session, self._session = self._session, None
        if session is not None:
            await self._batcher().do(Operation("close", session))

    def _under_way(self) -> str:
        if self._session is None:
            raise EnvironmentFault("no episode is under way: reset the environment first")
        return self._session

    async def _do(self, operation: Operation) -> Step:
        answer = await self._batcher().do(operation)
        if answer.step is None:
            raise EnvironmentFault(f"{self._url}: {answer.error}")
        return answer.step

    def _batcher(self) -> _Batcher:
        return _batcher(self._url, self._timeout_seconds)


class RemoteTasks(LazyTasks):
    """Tasks that are fetched page by page, and kept."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url, self._timeout_seconds = url, timeout_seconds
        self._pages: dict[int, list[JSON]] = {}
        self._size: int = self._page(0)["size"]

    def __len__(self) -> int:
        return self._size

    def task(self, index: int) -> JSON:
        """Return a task; the whole page that it is on is fetched."""
        page, place = divmod(index, PAGE)
        if page not in self._pages:
            self._page(page)
        return self._pages[page][place]

    def _page(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = _get(f"{self._url}?start={number * PAGE}&num={PAGE}", self._timeout_seconds)
        self._pages[number] = found["tasks"]
        return found


class _Batcher:
    """Sends what is asked for in one turn of the event loop as one request."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url, self._timeout_seconds = url, timeout_seconds
        self._waiting: list[tuple[Operation, asyncio.Future[Answer]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def do(self, operation: Operation) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if len(self._waiting) == 1:
            task = asyncio.ensure_future(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await future

    async def _send(self) -> None:
        from aiohttp import ClientError

        await asyncio.sleep(0)  # let the others of this moment ask too
        batch, self._waiting = self._waiting, []
        waiting = dict(enumerate(future for _, future in batch))
        fault = "the reply ended too early"
        try:
            async for number, answer in self._answers([operation for operation, _ in batch]):
                if not (future := waiting.pop(number)).done():
                    future.set_result(answer)
        except (ClientError, TimeoutError, LookupError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
        for future in waiting.values():
            if not future.done():
                future.set_result(Answer(error=f"no answer: {fault}"))

    async def _answers(self, batch: list[Operation]) -> AsyncIterator[tuple[int, Answer]]:
        from aiohttp import ClientSession, ClientTimeout

        timeout, headers = ClientTimeout(total=self._timeout_seconds), {"Content-Type": "application/json"}
        async with (
            ClientSession(timeout=timeout, read_bufsize=MAX_BODY_BYTES) as session,
            session.post(f"{self._url}/batch", data=dump_operations(batch), headers=headers) as reply,
        ):
            if reply.status != 200:
                raise ValueError(f"status {reply.status}: {(await reply.text(errors='replace'))[:200]}")
            async for line in reply.content:
                yield read_answer(line)


_BATCHERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Batcher]] = weakref.WeakKeyDictionary()


def _batcher(url: str, timeout_seconds: float) -> _Batcher:
    """Return the batcher of this event loop for a server."""
    batchers = _BATCHERS.setdefault(asyncio.get_running_loop(), {})
    return batchers.setdefault(url, _Batcher(url, timeout_seconds))


def _get(url: str, timeout_seconds: float) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise ConfigError(f"{url}: {text[:300]}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{url}: nobody serves an environment there ({error}); start one: understudy serve"
        ) from error
