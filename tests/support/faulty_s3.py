"""An HTTP proxy before an S3 server that does what networks and stores do: seeded, in a thread of its own.

    with FaultyS3("http://127.0.0.1:5000", seed=1, rate=0.2, faults=["503", "reset"]) as s3:
        ... s3.url ...; s3.faults = []; s3.counts; s3.methods; s3.watch = print  # gets every request before it is answered

500, 503   an error instead of an answer: InternalError, SlowDown
reset      the connection breaks: in the middle of a body, or after a PUT went through, so that its success is hidden
truncate   a body that ends early, and politely
stall      a body that stops for `stall_seconds`
latency    an answer that takes `stall_seconds`
refuse     the connection breaks before the store gets the request
hang       no answer comes as long as this is among `faults`; then the connection breaks
expired    from now on, every request is refused: ExpiredToken
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

CODES = {"500": (500, "InternalError"), "503": (503, "SlowDown"), "expired": (400, "ExpiredToken")}
HOP = {"transfer-encoding", "connection", "content-length"}
NOT_ADDED = ("Content-Type", "Accept", "Accept-Encoding", "User-Agent")  # signatures cover headers


@contextmanager
def serving(application: web.Application) -> Iterator[str]:
    """An application on loopback, in a thread of its own; yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(application, shutdown_timeout=0)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class FaultyS3:
    def __init__(self, target: str, seed: int, rate: float, faults: Sequence[str], stall_seconds: float = 5) -> None:
        self.target, self.rate, self.faults, self.stall_seconds = target, rate, list(faults), stall_seconds
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        self.watch: Callable[[str, str], object] | None = None  # method and path; runs in the proxy's thread

    def __enter__(self) -> Self:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self.handle)
        application.cleanup_ctx.append(self.client)
        self.serving = serving(application)
        self.url = self.serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.serving.__exit__(None, None, None)

    async def client(self, _application: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False) as self.session:
            yield

    def draw(self) -> str:
        if "expired" in self.faults:
            return "expired"
        return self.random.choice(self.faults) if self.faults and self.random.random() < self.rate else ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        fault = self.draw()
        self.counts[fault or "good"] += 1
        self.methods[request.method] += 1
        if self.watch:
            self.watch(request.method, request.path)
        if fault in CODES:
            status, code = CODES[fault]
            body = "" if request.method == "HEAD" else f"<Error><Code>{code}</Code><Message>{code}, says the proxy</Message></Error>"
            return web.Response(status=status, text=body, content_type="application/xml")
        if fault in ("refuse", "hang"):
            return await self.cut(request, fault)
        if fault == "latency":
            await asyncio.sleep(self.stall_seconds)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        url = URL(self.target + request.raw_path, encoded=True)
        sent: dict[str, Any] = {"headers": headers, "skip_auto_headers": NOT_ADDED, "allow_redirects": False}
        async with self.session.request(request.method, url, data=await request.read() or None, **sent) as answer:
            return await self.pass_on(request, answer, await answer.read(), fault)

    async def cut(self, request: web.Request, fault: str) -> web.Response:
        while fault == "hang" and fault in self.faults:
            await asyncio.sleep(0.05)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    async def pass_on(self, request: web.Request, answer: aiohttp.ClientResponse, body: bytes, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        response.headers.update({name: value for name, value in answer.headers.items() if name.lower() not in HOP})
        broken = fault in ("reset", "truncate", "stall")
        if request.method == "HEAD":
            response.content_length = int(answer.headers.get("Content-Length", 0))
        else:
            response.content_length = len(body)
        transport = request.transport
        if fault == "reset" and not body and transport is not None:
            transport.abort()
            return response
        await response.prepare(request)
        await response.write(body[: len(body) // 2] if broken else body)
        if fault == "stall":
            await asyncio.sleep(self.stall_seconds)
        if broken and body and transport is not None:
            transport.abort() if fault == "reset" else transport.close()
            return response
        await response.write_eof()
        return response
