"""Serve an ASGI app on a free loopback port during a block, as any server of ASGI apps does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn


@asynccontextmanager
async def on_loopback(app) -> AsyncIterator[str]:
    """Yield the host and the port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    listener = server.config.bind_socket()
    serve = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        yield f"localhost:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serve
