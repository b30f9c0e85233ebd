"""Submitting to a real head that wants a token, and following a job whose connection breaks."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from bulkembed.errors import ConfigError
from jobs import submit
from tests.support.commands import wait_for_receipts
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.cutting_proxy import cutting_proxy
from tests.support.processes import PATIENCE, ROOT, bulkembed, free_port, wait_for_port, wait_until
from tests.support.runs import read_dataset

TOKEN = secrets.token_hex(32)
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
WITHOUT_TOKEN = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@pytest.fixture(scope="session")
def head() -> Iterator[tuple[int, int]]:
    """Ports of the cluster and of the dashboard of a head that wants TOKEN. It runs in a folder and a home of its own."""
    cluster, dashboard, client = free_port(), free_port(), free_port()
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


def command(port: int, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / "submit.py"), "--address", f"http://127.0.0.1:{port}", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"RAY_ADDRESS": "http://127.0.0.1:1", "PYTHONPATH": str(ROOT)} | more


def called(port: int, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    full = command(port, *arguments)
    return subprocess.run(full, env=environment(**more), capture_output=True, text=True, check=False, timeout=PATIENCE)


def submitted(port: int, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return called(port, "--", *arguments, **more)


@pytest.fixture
def config(tmp_path: Path, qwen: str) -> Path:
    write_corpus(tmp_path / "in", files=1)
    path = tmp_path / "run.toml"
    path.write_text(
        f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\nmax_tokens = 64\n[engine]\nkind = "simulated"\n'
    )
    return path


def ask_head(port: int, script: str, *arguments: str) -> Any:
    """What a few lines of Python print as JSON that have a `client` of the head, and `arguments` as sys.argv[1:]."""
    code = f"import json, sys\nfrom ray.job_submission import JobSubmissionClient as Client\nclient = Client(sys.argv[1])\n{script}"
    full = [sys.executable, "-c", code, f"http://127.0.0.1:{port}", *arguments]
    clean = environment(RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{port}", **WITH_TOKEN)
    return json.loads(subprocess.run(full, env=clean, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout)


def test_a_job_runs_once_however_often_it_is_submitted_over_connections_that_are_cut(
    head: tuple[int, int], config: Path, tmp_path: Path
) -> None:
    given = ("--id", "night", "--", "run", f"--config={config}")
    with cutting_proxy(head[1], seed=1, tail_bytes=1500, rate=0.4) as proxy:
        queued = called(proxy.port, "--no-wait", *given, **WITH_TOKEN)
        assert (queued.returncode, queued.stdout) == (0, f"night submitted to http://127.0.0.1:{proxy.port}\n"), queued.stderr
        followed = called(proxy.port, *given, **WITH_TOKEN)
        again = called(proxy.port, *given, **WITH_TOKEN)
    assert (followed.returncode, followed.stderr) == (again.returncode, again.stderr) == (0, "")
    assert proxy.cuts
    ids, log = ask_head(head[1], "print(json.dumps([[job.submission_id for job in client.list_jobs()], client.get_job_logs('night')]))")
    assert [name for name in ids if name and name.startswith("night")] == ["night"]
    assert log.count("50 documents  ") == 1
    first, _, rest = followed.stdout.partition("\n")
    assert first.endswith("; not started again")
    assert rest == f"{log}night: SUCCEEDED, exit code 0\n"
    assert again.stdout == f"night: SUCCEEDED at http://127.0.0.1:{proxy.port}; not started again\n{rest}"
    assert read_dataset(tmp_path / "out").num_rows == 50


LOUD = """
import pathlib, sys, time
for n in range(300):
    print(n, 'émigré 検索 🧮 '[: n % 14] * (n % 5), flush=True)
    if n < 200:
        time.sleep(0.01)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.05)
raise SystemExit(3)
"""


def test_a_log_is_printed_once_over_connections_to_a_head_that_are_cut(head: tuple[int, int], tmp_path: Path) -> None:
    """The job goes on until its log was cut twice. All of it is longer than what any connection lets through."""
    ask_head(
        head[1],
        "print(json.dumps(client.submit_job(submission_id='loud', entrypoint=sys.argv[2])))",
        shlex.join(["python", "-c", LOUD, str(tmp_path / "is cut")]),
    )
    with cutting_proxy(head[1], seed=2, tail_bytes=6000, rate=0.4) as proxy, ThreadPoolExecutor(1) as pool:
        attaching = pool.submit(called, proxy.port, "--attach", "loud", **WITH_TOKEN)
        wait_until(lambda: proxy.cuts > 1 or attaching.done(), "two cuts")
        (tmp_path / "is cut").touch()
        attached = attaching.result()
    assert proxy.cuts > 1
    assert (attached.returncode, attached.stderr) == (3, "")
    log = ask_head(head[1], "print(json.dumps(client.get_job_logs('loud')))")
    numbers = [line.partition(" ")[0] for line in log.splitlines()]
    assert [int(number) for number in numbers if number.isdecimal()] == list(range(300))
    assert attached.stdout == f"{log}loud: FAILED, exit code 3\n"


def test_a_job_that_is_stopped_publishes_its_shards_in_flight(head: tuple[int, int], config: Path, tmp_path: Path) -> None:
    """They take longer than the 3 s that Ray gives unless it is told otherwise. All of them together take minutes."""
    write_jsonl(tmp_path / "in" / "part-0.jsonl", [{"id": n, "text": f"{n} " if n < 5 else f"{n} word" * 60} for n in range(200)])
    slow = ["--set", "shards.max_rows=5", "--set", "engine.tokens_per_second=80", "--set", "ray.layout=fused"]
    follower = subprocess.Popen(
        command(head[1], "--id", "slow", "--", "run", "--config", config, *slow),
        env=environment(**WITH_TOKEN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_receipts(tmp_path / "out", 1, follower)
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 130
    assert said.startswith("submit: slow goes on; to follow it: python jobs/submit.py --address ")
    stopped = called(head[1], "--stop", "slow", **WITH_TOKEN)
    assert stopped.returncode == 0, stopped.stderr
    assert "slow stops; shards in flight have 25 s to be published\n" in stopped.stdout
    assert "bulkembed: interrupted: what is published stays" in stopped.stdout
    assert "slow: STOPPED: Job was intentionally stopped." in stopped.stdout
    receipts = list(tmp_path.glob("out/_meta/receipts/*/*.json"))
    assert 2 <= len(receipts) < 40
    assert {path.stem for path in tmp_path.glob("out/data/*/*.parquet")} == {path.stem for path in receipts}
    after = called(head[1], "--attach", "slow", **WITH_TOKEN)
    assert (after.returncode, after.stderr) == (143, "")


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
