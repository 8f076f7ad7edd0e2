"""Listen for HTTP on one address: for programs, and not for the web pages that somebody on this machine visits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp.web import AbstractRouteDef

MAX_BODY_BYTES = 256 * 2**20
SHUTDOWN_SECONDS = 5.0
"""For requests that are under way at the end."""


@asynccontextmanager
async def listening(routes: Iterable[AbstractRouteDef], host: str, port: int) -> AsyncIterator[str]:
    """Listen for a block; gives the URL. Port 0 is a free one.

    A page can send requests to the machine of whoever looks at it, but its browser then says whose page it is.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    from aiohttp import web

    @web.middleware
    async def refuse_pages(request: web.Request, handler: Any) -> Any:
        if "Origin" in request.headers:
            return web.json_response({"error": {"message": "this is for programs, and not for web pages"}}, status=403)
        return await handler(request)

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[refuse_pages])
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen at {host}:{port}: {reason}; name another port, or 0") from error
        at, number = runner.addresses[0][:2]
        yield f"http://{f'[{at}]' if ':' in at else at}:{number}"
    finally:
        await runner.cleanup()
