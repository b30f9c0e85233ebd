"""A small head: the part of Ray's Jobs API that a client uses, with jobs that only have a log and a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from tests.support.faulty_s3 import serving


@dataclass
class Job:
    """`log` is sent in pieces, one every `seconds`; the job ends after the last one, with `status` and `code`.

    The last one waits until `may_end`, which is asked of the job as it is then. `followers` have asked for the log as it grows."""

    log: list[str] = field(default_factory=list)
    seconds: float = 0.0
    status: str = "SUCCEEDED"
    code: int | None = 0
    metadata: dict[str, str] = field(default_factory=dict)
    may_end: Callable[[Job], object] = lambda job: True
    written: int = 0
    followers: int = 0
    stops: int = 0

    @property
    def has_ended(self) -> bool:
        return self.written >= len(self.log)


class SmallHead:
    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.next: list[Job] = []  # what the next submissions become
        self.posts = self.port = 0
        self.deaf = 0  # how many askings to stop no job hears

        self.tasks: list[asyncio.Future[None]] = []
        self.is_over = False

    async def end(self, _application: web.Application) -> None:
        self.is_over = True  # the server waits for its handlers, and a log may have no end
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def details(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        ended = {"status": job.status, "driver_exit_code": job.code} if job.has_ended else {"status": "RUNNING"}
        return {"type": "SUBMISSION", "submission_id": name, "entrypoint": "x", "metadata": job.metadata, "message": "A\nB"} | ended

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    async def all_jobs(self, _request: web.Request) -> web.Response:
        driver = {"type": "DRIVER", "submission_id": None, "job_id": "01000000", "status": "RUNNING", "entrypoint": "x"}
        return web.json_response([driver, *map(self.details, self.jobs)])

    async def package(self, request: web.Request) -> web.Response:
        return web.Response(status=404 if request.method == "GET" else 200)

    async def post(self, request: web.Request) -> web.Response:
        given = await request.json()
        name = given["submission_id"]
        if name in self.jobs:
            return web.Response(status=400, text=f"Job with submission_id {name} already exists.")
        self.posts += 1
        self.jobs[name] = self.next.pop(0) if self.next else Job()
        self.jobs[name].metadata = given["metadata"]
        self.run(name)
        return web.json_response({"job_id": name, "submission_id": name})

    def run(self, name: str) -> None:
        self.tasks.append(asyncio.ensure_future(self.write(self.jobs[name])))

    async def write(self, job: Job) -> None:
        while not job.has_ended:
            await asyncio.sleep(job.seconds)
            if job.written < len(job.log) - 1 or job.may_end(job):
                job.written += 1

    async def info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(self.details(name)) if name in self.jobs else self.unknown(name)

    def unknown(self, name: str) -> web.Response:
        return web.Response(status=404, text=f"Job {name} does not exist")

    async def logs(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["name"]]
        return web.json_response({"logs": "".join(job.log[: job.written])})

    async def stop(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["name"]]
        self.deaf -= 1
        job.stops += 1
        if self.deaf < 0:
            job.status, job.code = "STOPPED", None
            job.log = job.log[: job.written]
        return web.json_response({"stopped": self.deaf < 0})

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        job = self.jobs[request.match_info["name"]]
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        job.followers += 1
        sent = 0
        while not self.is_over and (not job.has_ended or sent < job.written):
            begin, sent = sent, job.written
            if new := "".join(job.log[begin:sent]):
                await answer.send_str(new)
            await asyncio.sleep(0.005)
        return answer


@contextmanager
def small_head() -> Iterator[SmallHead]:
    head, application = SmallHead(), web.Application()
    routes = [
        web.get("/api/version", head.version),
        web.get("/api/jobs/", head.all_jobs),
        web.post("/api/jobs/", head.post),
        web.route("*", "/api/packages/gcs/{name}", head.package),
        web.get("/api/jobs/{name}", head.info),
        web.get("/api/jobs/{name}/logs", head.logs),
        web.post("/api/jobs/{name}/stop", head.stop),
        web.get("/api/jobs/{name}/logs/tail", head.tail),
    ]
    application.add_routes(routes)
    application.on_shutdown.append(head.end)
    with serving(application) as url:
        head.port = urlsplit(url).port or 0
        yield head
