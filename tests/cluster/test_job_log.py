"""The log of a job over connections that break, and the exit code that it ends with."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bulkembed.cluster import job_log, jobs_client
from bulkembed.cluster.job_log import Log
from bulkembed.errors import BulkembedError, ClusterError, OutputError
from jobs import submit


class Job:
    """A client of a job: each connection to its log is a list of texts, a fault at the end or None for one that says no more."""

    def __init__(self, connections: list[list[str | Exception | None]], code: int | None = 0, status: str = "SUCCEEDED") -> None:
        self.connections = connections
        self.last = SimpleNamespace(status=Status(status), driver_exit_code=code, message="Unexpected\nerror")

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for text in self.connections.pop(0):
            if text is None:
                await asyncio.sleep(60)
            elif isinstance(text, Exception):
                raise text
            else:
                yield text

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        return SimpleNamespace(status=Status("RUNNING")) if self.connections else self.last

    def get_job_logs(self, job_id: str) -> str:
        return "one\ntwo\nthree\n"


class Status(str):
    def is_terminal(self) -> bool:
        return self not in ("PENDING", "RUNNING")


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], int]:
    monkeypatch.setattr(job_log, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(job_log, "QUIET_SECONDS", 0.05)

    def follow(client: Any) -> int:
        job = job_log.follow(client, "j", Log(submit.say))
        submit.say(f"{job_log.end_text('j', job)}\n")
        return job_log.exit_code(job)

    return follow


@pytest.mark.parametrize(
    "connections",
    [
        [["one\ntwo\n", "three\n"]],
        [["one\n"], ["one\ntw"], ["one\n", "two\nthree\n"]],
        [["one\n", RuntimeError("closed")], [ConnectionError("gone")], ["one\ntwo\n"]],
        [["one\n", None], [None], []],
    ],
)
def test_a_log_is_printed_once_whatever_its_connections_do(
    connections: list[list[Any]], followed: Callable[[Any], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert followed(Job(connections)) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\nj: SUCCEEDED, exit code 0\n"


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        *[("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", 3, 3), ("FAILED", 130, 130), ("FAILED", 143, 143)],
        *[("FAILED", -9, 137), ("FAILED", None, 1), ("STOPPED", None, 143)],
    ],
)
def test_exit_codes(status: str, code: int | None, wanted: int, followed: Callable[[Any], int]) -> None:
    assert followed(Job([[]], code, status)) == wanted


def test_a_head_that_is_gone_for_long(followed: Callable[[Any], int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Job):
        def get_job_info(self, job_id: str) -> SimpleNamespace:
            raise ConnectionError("Connection refused")

    monkeypatch.setattr(job_log, "MAX_UNSEEN_SECONDS", 0.0)
    with pytest.raises(BulkembedError, match=r"^j is out of sight, and may go on: Connection refused") as caught:
        followed(Gone([[], []]))
    assert caught.value.exit_code == 1


def test_a_log_that_cannot_be_printed_is_no_fault_of_the_connection(
    followed: Callable[[Any], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is asked for until the head is given up, minutes after the job has ended."""

    def refuse(_text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout.write", refuse)
    monkeypatch.setattr("bulkembed.cli.console.out.drop", lambda: None)
    monkeypatch.setattr(job_log, "MAX_UNSEEN_SECONDS", 2.0)
    with pytest.raises(OutputError, match=r"^standard output cannot be written: No space left"):
        followed(Job([["one\n"]]))


def test_a_log_that_cannot_be_read_changes_nothing_about_the_end(
    followed: Callable[[Any], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray reads it as UTF-8, and fails on one wrong byte."""

    class Unreadable(Job):
        def get_job_logs(self, job_id: str) -> str:
            raise RuntimeError("Request failed with status code 500: Traceback")

    assert followed(Unreadable([["one\n", RuntimeError("closed")]], 3, "FAILED")) == 3
    out = capsys.readouterr().out
    assert out.startswith(
        "one\n\nj: the rest of the log cannot be read (Request failed with status code 500: Traceback); the head has it in "
    )
    assert out.endswith("j: FAILED, exit code 3\n")


def test_a_head_that_does_not_take_the_job() -> None:
    def refuse(*_: object, **job: Any) -> None:
        raise RuntimeError("Request failed with status code 500: full.\nmore")

    client = SimpleNamespace(submit_job=refuse, get_job_info=refuse)
    with pytest.raises(BulkembedError, match=r"j was not taken: Request failed with status code 500: full\.$") as caught:
        jobs_client.submit_job(client, "j", {})
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, ClusterError)
