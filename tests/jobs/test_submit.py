"""Submitting to a real head that wants a token, and following a job whose connection breaks."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bulkembed.errors import BulkembedError, ClusterError, ConfigError, OutputError
from jobs import submit
from tests.support.corpora import write_corpus
from tests.support.processes import ROOT, bulkembed, wait_for_port
from tests.support.runs import read_dataset

TOKEN = secrets.token_hex(32)
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def head() -> Iterator[tuple[int, int]]:
    """Ports of the cluster and of the dashboard of a head that wants TOKEN. It runs in a folder and a home of its own."""
    cluster, dashboard, client = free_ports(3)
    flags = [f"--port={cluster}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--include-dashboard=true"]
    flags += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--dashboard-agent-listen-port=0", "--num-cpus=2"]
    flags += [f"--object-store-memory={200 << 20}", "--num-gpus=0", "--disable-usage-stats", "--block"]
    # A short name: it begins the names of sockets.
    with TemporaryDirectory(prefix="head-", ignore_cleanup_errors=True) as folder, (Path(folder) / "head.log").open("wb") as log:
        environment = os.environ | WITH_TOKEN | LOOPBACK | {"RAY_TMPDIR": folder, "HOME": folder, "PYTHONPATH": str(ROOT)}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_enable_metrics_collection": "0"}
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *flags]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_for_port(dashboard, process)
            yield cluster, dashboard
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            psutil.wait_procs([psutil.Process(process.pid)], timeout=15)
            for child in psutil.wait_procs(children, timeout=5)[1]:
                child.kill()
            process.kill()
            process.wait()


def submitted(port: int, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, str(ROOT / "jobs" / "submit.py"), "--address", f"http://127.0.0.1:{port}", "--", *map(str, command)]
    clean = os.environ | {"RAY_ADDRESS": "http://127.0.0.1:1", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(full, env=clean, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture
def config(tmp_path: Path, qwen: str) -> Path:
    write_corpus(tmp_path / "in", files=1)
    path = tmp_path / "run.toml"
    path.write_text(
        f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\nmax_tokens = 64\n[engine]\nkind = "simulated"\n'
    )
    return path


def test_a_job_plans_and_runs(head: tuple[int, int], config: Path, tmp_path: Path) -> None:
    planned = submitted(head[1], "plan", "--config", config, **WITH_TOKEN)
    assert planned.returncode == 0, planned.stderr
    assert "50 documents" in planned.stdout
    assert not (tmp_path / "out").exists()
    run = submitted(head[1], "run", f"--config={config}", **WITH_TOKEN)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("50 documents  ") == 1
    assert not run.stderr
    assert read_dataset(tmp_path / "out").num_rows == 50


def test_the_jobs_own_exit_code_comes_back(head: tuple[int, int], config: Path) -> None:
    result = submitted(head[1], "run", "--config", config, "--dims", "7777", **WITH_TOKEN)
    assert result.returncode == 2
    assert "bulkembed: dims: 7777 is more than" in result.stdout
    assert "FAILED, exit code 2" in result.stdout


@pytest.mark.parametrize("given", [WITHOUT_TOKEN, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}])
def test_a_head_that_wants_a_token(head: tuple[int, int], config: Path, given: dict[str, str]) -> None:
    refused = submitted(head[1], "plan", "--config", config, **given)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"submit: http://127.0.0.1:{head[1]} wants a token")
    assert "set RAY_AUTH_MODE=token" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert TOKEN not in refused.stderr + refused.stdout


def test_a_cluster_that_wants_a_token(head: tuple[int, int], config: Path) -> None:
    refused = bulkembed("run", "--config", config, RAY_ADDRESS=f"127.0.0.1:{head[0]}", **WITHOUT_TOKEN, **LOOPBACK)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"bulkembed: ray.address: 127.0.0.1:{head[0]} wants a token")
    assert refused.stderr.count("\n") == 1


def test_a_port_without_a_jobs_api(head: tuple[int, int], config: Path) -> None:
    refused = submitted(head[0], "plan", "--config", config, **WITH_TOKEN)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"http://127.0.0.1:{head[0]}" in refused.stderr


def test_no_head_is_one_line(config: Path) -> None:
    result = submitted(1, "run", "--config", config)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("submit: no head answers at http://127.0.0.1:1;")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "--config", "none.toml"], "--config none.toml: No such file"),
        (["run", "--config"], "--config: needs a file"),
        (["run", "--set", "storage.secret=hunter2"], "--set storage.secret: everybody who sees"),
        (["run", "--set=engine.env={KEY = 'hunter2'}"], "--set engine.env: everybody who sees"),
        (["run", "--source", "s3://me:hunter2@corpus/docs"], "source: holds credentials"),
        (["run", "--set", "output='s3://me:hunter2@corpus/docs'"], "output: holds credentials"),
    ],
)
def test_what_must_not_be_submitted(command: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}") as caught:
        submit.submit(argparse.Namespace(address="http://127.0.0.1:1", command=command, no_wait=False))
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ["run", "--source", "in"],
        ["run", "--set", "output=~/out"],
        ["run", "--model=./model"],
        ["run", "--set", 'source=["s3://a/b", "c"]'],
        ["run", "--config", "{}/run.toml"],
    ],
)
def test_a_place_of_this_machine_alone_does_not_travel(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "run.toml").write_text('source = ["s3://a/b", "file:in"]')
    with pytest.raises(ConfigError, match="is not the same on the cluster; give an absolute path there, or a URI"):
        submit.refuse_relative([part.format(tmp_path) for part in given])
    (tmp_path / "run.toml").write_text('source = "s3://a/b"\nmodel = "Qwen/Qwen3-Embedding-4B"')
    submit.refuse_relative(["run", "--config", f"{tmp_path}/run.toml", "--output", "/mnt/out"])


def test_only_the_configuration_files_travel(tmp_path: Path) -> None:
    here, folder = tmp_path / "here", tmp_path / "sent"
    for path in (here / "a" / "run.toml", here / "b" / "run.toml", here / "pipeline.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    folder.mkdir()
    given = ["run", "--config", f"{here}/a/run.toml", f"--config={here}/b/run.toml", "--prompt", "two words"]
    sent = submit.pack_configs(given, folder)
    assert sent == ["run", "--config", "1-run.toml", "--config=2-run.toml", "--prompt", "two words"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "1-run.toml": f"{here}/a/run.toml",
        "2-run.toml": f"{here}/b/run.toml",
    }
    assert shlex.split(submit.submission(sent, folder)["entrypoint"]) == ["python", "-m", "bulkembed", *sent]


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, {}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "http://head:8265"}, "http://head:8265"),
        (None, {"RAY_ADDRESS": "http://head:8265", "RAY_API_SERVER_ADDRESS": "https://api/"}, "https://api"),
        ("http://mine:1", {"RAY_ADDRESS": "http://head:8265", "RAY_API_SERVER_ADDRESS": "https://api/"}, "http://mine:1"),
    ],
)
def test_which_head_is_asked(given: str | None, environment: dict[str, str], address: str) -> None:
    assert submit.head_address(given, environment) == address


@pytest.mark.parametrize("given", ["127.0.0.1:8265", "ray://head:10001", "http://", "http://head:port", "http://me:hunter2@head:8265"])
def test_an_address_of_no_head(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^--address") as caught:
        submit.head_address(given, {})
    assert "hunter2" not in str(caught.value)


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
    monkeypatch.setattr(submit, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(submit, "QUIET_SECONDS", 0.05)
    return lambda client: asyncio.run(submit.follow(client, "j"))


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

    monkeypatch.setattr(submit, "MAX_UNSEEN_SECONDS", 0.0)
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
    monkeypatch.setattr(submit, "MAX_UNSEEN_SECONDS", 2.0)
    with pytest.raises(OutputError, match=r"^standard output cannot be written: No space left"):
        followed(Job([["one\n"]]))


@pytest.mark.parametrize(("number", "code"), [((), 130), ((15,), 143)])
def test_an_interruption_says_that_the_job_goes_on(
    number: tuple[int, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(client: Any, job_id: str) -> int:
        raise KeyboardInterrupt(*number)

    monkeypatch.setattr(submit, "connect_client", lambda address: SimpleNamespace(submit_job=lambda **job: None))
    monkeypatch.setattr(submit, "follow", interrupted)
    assert submit.submit(argparse.Namespace(address="http://head:8265", command=["run"], no_wait=False)) == code
    assert "goes on; to stop it: ray job stop --address http://head:8265 bulkembed_" in capsys.readouterr().err


def test_a_head_that_does_not_take_the_job() -> None:
    def refuse(**job: Any) -> None:
        raise RuntimeError("Request failed with status code 500: full.\nmore")

    with pytest.raises(BulkembedError, match=r"j was not taken: Request failed with status code 500: full\.$") as caught:
        submit.submit_job(SimpleNamespace(submit_job=refuse), "j", {})
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, ClusterError)
