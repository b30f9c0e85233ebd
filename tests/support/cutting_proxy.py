"""A TCP proxy that cuts streams: whatever the server sends over a connection ends at a random byte. Seeded, in a thread of its own.

    with cutting_proxy(8265, seed=1, tail_bytes=2000, rate=0.4) as proxy:
        ... proxy.port ...; proxy.cuts

Every stream of a log is cut within its first `tail_bytes`, and every other connection with probability `rate` within its first 600.
Of those, never more than MAX_IN_A_ROW in a row: how many connections there are depends on the host, and a client gives up in the end.
A cut is polite (FIN) or not (RST).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MAX_IN_A_ROW = 3
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class CuttingProxy:
    def __init__(self, target: int, seed: int, tail_bytes: int, rate: float) -> None:
        self.target, self.tail_bytes, self.rate = target, tail_bytes, rate
        self.random = random.Random(seed)
        self.port = self.cuts = self.connections = self.in_a_row = 0

    def draw(self, request: bytes) -> int | None:
        """The number of bytes after which the answer to a request is cut, or None."""
        if b"/logs/tail" in request:
            return self.random.randrange(self.tail_bytes)
        is_cut = self.random.random() < self.rate and self.in_a_row < MAX_IN_A_ROW
        self.in_a_row = self.in_a_row + 1 if is_cut else 0
        return self.random.randrange(600) if is_cut else None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.CancelledError):  # at the end of the proxy its tasks are cancelled, and end without a word
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            request = await reader.read(65536)
            far_writer.write(request)
            up = asyncio.create_task(pump(reader, far_writer))
            await self.pump_down(far_reader, writer, self.draw(request))
            up.cancel()
            far_writer.close()
        writer.close()

    async def pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(65536):
            if left is not None and len(data) > left:
                writer.write(data[:left])
                await writer.drain()
                self.cuts += 1
                if self.random.random() < 0.5:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextmanager
def cutting_proxy(target: int, seed: int, tail_bytes: int, rate: float) -> Iterator[CuttingProxy]:
    proxy, loop = CuttingProxy(target, seed, tail_bytes, rate), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(proxy.handle, "127.0.0.1", 0), loop).result()
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(shut(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def shut(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
