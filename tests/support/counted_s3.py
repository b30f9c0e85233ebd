"""An HTTP proxy before an S3 server that notes every request, by kind and place, and can make each as slow as a network does."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from aiohttp import web

from tests.support.faulty_s3 import FaultyS3


class Request(NamedTuple):
    kind: str  # LIST, or the method
    place: str  # the key, or the prefix of a listing, without the bucket


class CountedS3(FaultyS3):
    """`latency` seconds are added to every answer."""

    def __init__(self, target: str, latency: float = 0) -> None:
        super().__init__(target, seed=0, rate=1, faults=["latency"] if latency else [], stall_seconds=latency)
        self.requests: list[Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        _, _, key = request.path.lstrip("/").partition("/")
        is_listing = request.method == "GET" and "list-type" in request.query
        self.requests.append(Request("LIST", request.query.get("prefix", "")) if is_listing else Request(request.method, key))
        return await super().handle(request)

    def taken(self) -> list[Request]:
        """The requests since the last call."""
        taken, self.requests = self.requests, []
        return taken

    def kinds(self) -> Counter[str]:
        """How many requests there were since the last call, by kind."""
        return Counter(request.kind for request in self.taken())
