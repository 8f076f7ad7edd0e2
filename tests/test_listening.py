"""Listening: where, for whom, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import ClientSession, web

from understudy.errors import ConfigError
from understudy.listening import listening


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=await request.text())


ROUTES = [web.post("/hello", hello)]


def test_programs_are_answered_and_web_pages_are_not() -> None:
    async def main() -> None:
        async with listening(ROUTES, "127.0.0.1", 0) as url, ClientSession() as session:
            async with session.post(f"{url}/hello", data="hi") as reply:
                assert (reply.status, await reply.text()) == (200, "hi")
            for origin in ("http://evil.example", "null", url):
                async with session.post(f"{url}/hello", data="hi", headers={"Origin": origin}) as reply:
                    assert reply.status == 403
                    assert "not for web pages" in await reply.text()

    asyncio.run(main())


def test_what_cannot_be_listened_at_is_said() -> None:
    async def main(host: str, port: int) -> None:
        async with listening(ROUTES, host, port):
            raise AssertionError("it listens")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("127.0.0.1", 70_000), ("192.0.2.1", 0)):
            with pytest.raises(ConfigError, match=rf"cannot listen at {host}:{port}: .*; name another port, or 0"):
                asyncio.run(main(host, port))
