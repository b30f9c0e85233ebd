"""Jobs on a small head: submitted once, followed through a proxy that cuts every stream, attached to, stopped."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkembed.cluster import job_log, jobs_client
from bulkembed.config import sent_command
from bulkembed.errors import BulkembedError, ClusterError, ConfigError
from jobs import submit
from tests.support.cutting_proxy import cutting_proxy
from tests.support.small_head import Job, SmallHead, small_head

Call = Callable[..., int]


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHead]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # submit.py sets it
    monkeypatch.setattr(job_log, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(job_log, "QUIET_SECONDS", 2.0)  # a stream that is cut just after its handshake ends without a word
    monkeypatch.setattr(jobs_client, "STOP_SECONDS", 0.0)
    logging.disable()  # as main does
    with small_head() as small:
        yield small
    logging.disable(logging.NOTSET)


def call(port: int, *arguments: str) -> int:
    """What `jobs/submit.py` exits with."""
    return submit.carry_out(submit.parser().parse_args(["--address", f"http://127.0.0.1:{port}", *arguments]))


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text('source = "s3://corpus/docs"\n')
    return str(path)


def lines(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{number} {'émigré 検索 🧮 '[: draw.randrange(12)]}{'x' * draw.randrange(60)}\n" for number in range(count)]


@pytest.mark.parametrize("seed", range(2))
def test_a_job_is_submitted_once_and_its_log_printed_once_through_a_proxy_that_cuts_the_stream(
    seed: int, head: SmallHead, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with cutting_proxy(head.port, seed=seed, tail_bytes=3000, rate=0.4) as proxy:
        head.next = [Job(lines(seed, 250), 0.001, "FAILED", 3, may_end=lambda _: proxy.cuts > 8)]
        assert call(proxy.port, "--", "run", "--config", config) == 3
    assert head.posts == len(head.jobs) == 1
    (name,) = head.jobs
    first, *middle, last = capsys.readouterr().out.splitlines(keepends=True)
    assert first == f"{name} submitted to http://127.0.0.1:{proxy.port}\n"
    assert "".join(middle) == "".join(lines(seed, 250))
    assert last == f"{name}: FAILED, exit code 3\n"


def test_a_repeat_follows_the_job_that_is_under_way(head: SmallHead, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    head.next = [Job(lines(0, 60), 0.01, may_end=lambda job: job.followers)]
    assert call(head.port, "--no-wait", "--", "run", "--config", config) == 0
    assert call(head.port, "--", "run", "--config", config) == 0
    assert head.posts == 1
    out = capsys.readouterr().out
    assert "RUNNING at" in out
    assert "".join(lines(0, 60)) in out


def test_the_id_is_that_of_the_command_and_of_what_its_files_hold(head: SmallHead, config: str, tmp_path: Path) -> None:
    def submitted(*command: str) -> str:
        before = set(head.jobs)
        assert call(head.port, "--no-wait", "--", *command) == 0
        return next(iter(set(head.jobs) - before)).partition(".")[0]

    first = submitted("run", "--config", config)
    (tmp_path / "same.toml").write_text(Path(config).read_text())
    assert submitted("run", "--config", str(tmp_path / "same.toml")) == first
    Path(config).write_text('source = "s3://corpus/others"\n')
    assert len({first, submitted("run", "--config", config), submitted("run", "--config", config, "--limit", "5"), submitted("run")}) == 4


@pytest.mark.parametrize(("status", "code", "named_again"), [("SUCCEEDED", 0, 1), ("FAILED", 1, 2), ("STOPPED", None, 2)])
def test_work_that_has_ended_begins_another_attempt_unless_it_is_named_and_has_succeeded(
    status: str, code: int | None, named_again: int, head: SmallHead, config: str
) -> None:
    head.next = [Job(status=status, code=code) for _ in range(4)]
    wanted = {"FAILED": 1, "SUCCEEDED": 0, "STOPPED": 143}[status]
    for _ in range(2):
        assert call(head.port, "--id", "night-27", "--", "run", "--config", config) == wanted
    assert list(head.jobs) == ["night-27", "night-27.2"][:named_again]
    head.jobs.clear()
    for _ in range(2):
        assert call(head.port, "--", "run", "--config", config) == wanted
    first, second = head.jobs
    assert second == f"{first}.2"


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
@pytest.mark.parametrize("of_another_tool", [True, False])
def test_another_command_of_the_same_name_is_not_taken_for_the_first(
    status: str, of_another_tool: bool, head: SmallHead, config: str
) -> None:
    head.next = [Job(log=["one\n"] * (1000 if status == "RUNNING" else 1), seconds=0.01)]
    assert call(head.port, "--id", "night", "--no-wait", "--", "run", "--config", config) == 0
    if of_another_tool:
        head.jobs["night"].metadata = {}
    else:
        Path(config).write_text('source = "s3://corpus/others"\n')
    said = r"^--id: night is \w+, and was submitted with another command"
    for newest in (jobs_client.newest_attempt, lambda client, name: None):  # the second one has seen that there is none
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError, match=said):
            patch.setattr(jobs_client, "newest_attempt", newest)
            call(head.port, "--id", "night", "--", "run", "--config", config)
    assert head.posts == 1


def test_two_calls_at_once_start_one_job(
    head: SmallHead, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both have seen that there is none."""
    head.next = [Job(log=lines(0, 20), seconds=0.01)]
    monkeypatch.setattr(jobs_client, "newest_attempt", lambda client, name: None)
    for _ in range(2):
        assert call(head.port, "--", "run", "--config", config) == 0
    assert head.posts == 1
    assert capsys.readouterr().out.count("".join(lines(0, 20))) == 2


def test_attaching_by_name_takes_the_newest_attempt(head: SmallHead, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["other", "night", "night.10", "night.9", "nightly"]):
        head.jobs[name] = Job(code=number, status="FAILED")
    assert call(head.port, "--attach", "night") == 2
    assert call(head.port, "--attach", "night.9") == 3
    assert "night.10: FAILED, exit code 2" in capsys.readouterr().out
    for option in ("--attach", "--stop"):
        with pytest.raises(ConfigError, match=r"^none: the head at http://127\.0\.0\.1:\d+ knows no such job") as caught:
            call(head.port, option, "none")
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "a.2", "../x", "-x", "a" * 65, "a b"])
def test_a_name_that_cannot_be_an_id(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--id .*: takes up to 64 letters"):
        call(1, f"--id={name}", "--", "run")


def test_stopping_prints_what_the_log_says_from_then_on(head: SmallHead, capsys: pytest.CaptureFixture[str]) -> None:
    head.jobs["night"] = Job(log=["before\n", "after\n", "never\n"], written=1, metadata={"grace_seconds": "25"})
    assert call(head.port, "--stop", "night") == 0
    assert capsys.readouterr().out == ("night stops; shards in flight have 25 s to be published\nnight: STOPPED: A\n")
    assert call(head.port, "--stop", "night") == 0
    assert head.jobs["night"].stops == 1


def test_a_job_whose_process_has_not_started_is_asked_again_to_stop(head: SmallHead, capsys: pytest.CaptureFixture[str]) -> None:
    head.jobs["night"], head.deaf = Job(log=["never\n"]), 3
    assert call(head.port, "--stop", "night") == 0
    assert head.jobs["night"].stops == 4
    assert "Ray gives it 3 s" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_that_the_job_goes_on_and_how_to_follow_and_stop_it(
    number: int, code: int, head: SmallHead, config: str, capsys: pytest.CaptureFixture[str]
) -> None:

    def interrupt_when_followed(job: Job) -> None:
        if job.followers and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    sent: list[int] = []
    head.next = [Job(log=["one\n", "never\n"], seconds=0.01, may_end=interrupt_when_followed)]
    before = signal.signal(signal.SIGTERM, submit.interrupt)
    try:
        assert call(head.port, "--", "run", "--config", config) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    (name,) = head.jobs
    common = f"python jobs/submit.py --address http://127.0.0.1:{head.port}"
    said = f"submit: {name} goes on; to follow it: {common} --attach {name}; to stop it: {common} --stop {name}\n"
    assert capsys.readouterr().err == said
    assert not head.jobs[name].stops


def test_a_head_that_has_forgotten_the_job(head: SmallHead, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_once_followed(job: Job) -> None:
        if job.followers:
            head.jobs.clear()

    head.next = [Job(log=["one\n", "never\n"], seconds=0.01, may_end=forget_once_followed)]
    monkeypatch.setattr(job_log, "QUIET_SECONDS", 0.1)
    with pytest.raises(BulkembedError, match=r"is not known to the head any more, which has started again; submit it again") as caught:
        call(head.port, "--", "run", "--config", config)
    assert caught.value.exit_code == 1


def test_what_ray_is_told_about_the_grace(head: SmallHead, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("grace_seconds = 40\n")
    given: list[dict[str, Any]] = []
    for command in (["run"], ["run", "--config", str(path)], ["run", "--config", str(path), "--grace-seconds", "7.5"]):
        grace = sent_command.grace_seconds(command)
        given.append(submit.submission(command, tmp_path, grace, ""))
    assert [job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] for job in given] == ["40", "55", "23"]
    assert [job["metadata"]["grace_seconds"] for job in given] == ["25", "40", "7.5"]


def test_a_head_that_is_gone_when_a_job_is_looked_for(head: SmallHead, monkeypatch: pytest.MonkeyPatch) -> None:
    client = jobs_client.connect_client(f"http://127.0.0.1:{head.port}")
    monkeypatch.setattr(client, "list_jobs", lambda: (_ for _ in ()).throw(ConnectionError("refused")))
    with pytest.raises(ClusterError, match=r"^the head at http://127.* does not answer: refused"):
        jobs_client.require_job(client, "night")
