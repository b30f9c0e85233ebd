"""A job of a cluster -> its log, printed once over however many connections, and the exit code that it ended with."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bulkembed.cluster.jobs_client import first_line
from bulkembed.errors import BulkembedError

QUIET_SECONDS = 60  # without a line of the log; then the connection is made again
RETRY_SECONDS = 2.0
MAX_UNSEEN_SECONDS = 300.0  # without an answer of the head; then following ends
MAX_READS = 5  # of the whole log, once the job has ended


class Log:
    """Remembers how much of a job's log is printed. Every connection sends the log from its start."""

    def __init__(self, say: Callable[[str], None], printed: int = 0) -> None:
        """`printed`: how many characters of the log are not to be printed, as they were seen before."""
        self.say, self.printed = say, printed

    def show(self, text: str, start: int) -> int:
        """Prints the new part of `text`, which begins at position `start` of the log. Returns the position of its end."""
        new = text[max(0, self.printed - start) :]
        self.say(new)
        self.printed += len(new)
        return start + len(text)


def faults() -> tuple[type[Exception], ...]:
    """What a broken connection raises, and a head that is away or cannot read its log."""
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError

    return (OSError, RuntimeError, ClientError, AuthenticationError)


def follow(client: Any, job_id: str, log: Log) -> Any:
    """Prints the job's log until the job ends, and connects again whenever the connection ends. Returns the job as it ended.

    The end of a connection says nothing: the log ends without an error also where a proxy or the head cuts it. So the job is asked.
    Raises BulkembedError where the head has not answered for MAX_UNSEEN_SECONDS, or has forgotten the job."""
    seen = time.monotonic()
    while True:
        with suppress(*faults()):  # the next call shows what is wrong, if it lasts
            asyncio.run(tail(client, job_id, log))
        try:
            job = client.get_job_info(job_id)
            seen = time.monotonic()
        except faults() as error:
            if "does not exist" in str(error):
                raise BulkembedError(f"{job_id} is not known to the head any more, which has started again; submit it again") from error
            if time.monotonic() - seen > MAX_UNSEEN_SECONDS:
                raise BulkembedError(f"{job_id} is out of sight, and may go on: {first_line(error)}") from error
        else:
            if job.status.is_terminal():
                show_rest(client, job_id, log)
                return job
        time.sleep(RETRY_SECONDS)


async def tail(client: Any, job_id: str, log: Log) -> None:
    """Prints the log until the connection ends. The job may go on after that."""
    lines = aiter(client.tail_job_logs(job_id))
    position = 0
    while True:
        async with asyncio.timeout(QUIET_SECONDS):  # `wait_for` of Python 3.11 loses a Ctrl-C that comes with a line
            text = await anext(lines, None)
        if text is None:
            return
        position = log.show(text, position)


def show_rest(client: Any, job_id: str, log: Log) -> None:
    """Prints what is left of the log of a job that has ended. A log that cannot be read changes nothing about the job's end."""
    for attempt in range(MAX_READS):
        try:
            log.show(client.get_job_logs(job_id), 0)
            return
        except faults() as error:
            if attempt == MAX_READS - 1:
                log.say(
                    f"\n{job_id}: the rest of the log cannot be read ({first_line(error)}); the head has it in job-driver-{job_id}.log\n"
                )
        time.sleep(RETRY_SECONDS)


def exit_code(job: Any) -> int:
    """The exit code of a job that has ended: that of its process. It is 143 where it was stopped, and 1 where Ray lost the process."""
    code: int | None = job.driver_exit_code
    if code is None:
        return {"SUCCEEDED": 0, "STOPPED": 128 + signal.SIGTERM}.get(str(job.status), 1)
    return 128 - code if code < 0 else code  # below 0 it is the signal that ended the process


def end_text(job_id: str, job: Any) -> str:
    """One line about how a job has ended."""
    if job.driver_exit_code is not None:
        return f"{job_id}: {job.status}, exit code {job.driver_exit_code}"
    reason = (job.message or "").strip().splitlines()
    return f"{job_id}: {job.status}: {reason[0] if reason else 'no reason given'}"
