"""A small server of OpenAI's chat completions over real HTTP, with a function for a model, and with faults.

``python -m tests.openai_server PORT DELAY_SECONDS`` serves `calculating` on its own, for benchmarks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

Model = Callable[[Mapping[str, Any]], dict[str, Any]]
"""From a request's body to the assistant message of the reply."""

Faults = Callable[[int], str | None]
"""From a request's number to the fault that it meets: one of `FAULTS`, or None."""

FAULTS = ("429", "500", "timeout", "cut", "malformed")


def calculating(body: Mapping[str, Any]) -> dict[str, Any]:
    """Play the environment `math` with bare expressions: compute what is asked for, then say the result."""
    last = body["messages"][-1]
    if last["role"] == "user":
        expression = last["content"].removeprefix("Compute ").rstrip(".")
        arguments = json.dumps({"expression": expression})
        call = {"id": "call00000", "type": "function", "function": {"name": "calculator", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": f"The answer is {last['content']}."}


class OpenAIServer:
    """The server, in a thread of its own. Use it as a context manager.

    Attributes:
        base_url: what the client is given.
        bodies: the requests' bodies, in the order in which they came.
        num_requests: how many there were.
        met: how often each fault was met.
    """

    def __init__(
        self,
        model: Model = calculating,
        *,
        faults: Faults = lambda number: None,
        extra: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda body: {},
        delay_seconds: float = 0.0,
        port: int = 0,
    ) -> None:
        self._model = model
        self._faults = faults
        self._extra = extra
        self._delay_seconds = delay_seconds
        self._port = port
        self.bodies: list[dict[str, Any]] = []
        self.num_requests = 0
        self.met: Counter[str] = Counter()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    async def serve(self) -> None:
        """Serve until told to stop."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stopped.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
                await self._reply(json.loads(await reader.readexactly(length)), writer)
        except (asyncio.IncompleteReadError, ConnectionError, StopIteration):
            pass
        finally:
            writer.close()

    async def _reply(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        number = self.num_requests
        self.num_requests += 1
        self.bodies.append(body)
        fault = self._faults(number)
        await asyncio.sleep(self._delay_seconds)
        if fault is not None:
            self.met[fault] += 1
        if fault == "timeout":
            await asyncio.sleep(30)
        elif fault == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b'{"choices": [{"mess')
            raise ConnectionError
        elif fault == "429":
            self._write(writer, "429 Too Many Requests", {"error": {"message": "slow down"}}, "Retry-After: 0.02\r\n")
        elif fault == "500":
            self._write(writer, "500 Internal Server Error", {"error": {"message": "oh no"}})
        elif fault == "malformed":
            broken = [b"<html>busy</html>", b'{"choices": []}', b'{"choices": [{"message": "hi"}]}', b""]
            self._write(writer, "200 OK", broken[self.met[fault] % len(broken)])
        elif fault is not None:
            status, _, message = fault.partition(" ")
            self._write(writer, f"{status} Error", {"error": {"message": message, "code": message.split(":")[0]}})
        else:
            self._write(writer, "200 OK", self._completion(body))
        await writer.drain()

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        choice = {"index": 0, "message": self._model(body), "finish_reason": "stop"}
        extra = self._extra(body)
        choice |= extra.pop("choice", {})
        usage = {"prompt_tokens": 10 * len(body["messages"]), "completion_tokens": 5}
        reply = {"id": "r", "object": "chat.completion", "created": 0, "model": body["model"]}
        return reply | {"choices": [choice], "usage": usage} | extra

    def _write(
        self, writer: asyncio.StreamWriter, status: str, content: Mapping[str, Any] | bytes, headers: str = ""
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        writer.write(head.encode() + data)


if __name__ == "__main__":
    asyncio.run(OpenAIServer(port=int(sys.argv[1]), delay_seconds=float(sys.argv[2])).serve())
