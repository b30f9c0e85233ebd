"""SIGTERM and SIGINT at any moment: one line, 143 or 130, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from bulkembed import stopping
from bulkembed.cli import signals
from bulkembed.cli.console import Output
from bulkembed.errors import InterruptedRun, OutputError
from bulkembed.runs.lookup import open_job
from bulkembed.text.tokenizer import Tokenizer
from tests.support.commands import in_process, job, start, wait_for_receipts
from tests.support.corpora import write_corpus, write_slow_corpus
from tests.support.processes import PATIENCE, ROOT, command_of, processes_of_own_ray, wait_until, wait_until_taken
from tests.support.runs import in_one_process, read_dataset, simulated

# Where a main thread may be. Each says "there" once it is.
STUCK = {
    "asleep": "say(); time.sleep(600)",
    "in C": "say(); hashlib.pbkdf2_hmac('sha512', b'', b'', 1 << 30)",
    "waiting for a logger's lock": "threading.Thread(target=hold, daemon=True).start(); held.wait(); say(); logging.warning('late')",
    "writing to a full pipe": "say(); os.write(1, bytes(1 << 22))",
    "waiting for a child": "child = subprocess.Popen(['sleep', '600']); say(); child.wait()",
    "waiting for a thread as it exits": "threading.Thread(target=time.sleep, args=(600,)).start(); say(); sys.exit(0)",
}
PROGRAM = """
import hashlib, logging, os, subprocess, sys, threading, time
from bulkembed.cli import signals
signals.TIDY_SECONDS = 0.5
signals.catch()
def say():
    os.write(1, b"there\\n")
def hold():
    logging.getLogger().handlers[0].acquire()
    held.set()
    time.sleep(600)
held = threading.Event()
logging.basicConfig()
"""


def started(*command: object) -> subprocess.Popen[str]:
    words = [sys.executable, *map(str, command)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    assert any(line.startswith(start) for line in process.stdout), process.communicate()[1]


def ended(process: subprocess.Popen[str]) -> list[str]:
    """The lines on stderr of a process that must end by itself."""
    _, errors = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("bulkembed: ")]


@pytest.fixture(scope="module")
def stuck() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process stuck in each place, all started at once."""
    begun = {place: started("-c", f"{PROGRAM}\nsignals.TIDY_SECONDS = 600\n{code}") for place, code in STUCK.items()}
    yield begun
    for process in begun.values():
        process.kill()


@pytest.mark.parametrize("place", STUCK)
def test_a_second_signal_ends_the_process_wherever_it_is(place: str, stuck: dict[str, subprocess.Popen[str]]) -> None:
    process = stuck[place]
    wait_for_line(process, "there")
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    wait_until_taken(process, signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended(process)
    assert process.returncode == 130
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_nobody_notices_ends_the_process_with_one_line(sent: signal.Signals, code: int) -> None:
    process = started("-c", PROGRAM + STUCK["asleep"])
    wait_for_line(process, "there")
    process.send_signal(sent)
    assert ended(process) == [f"bulkembed: {InterruptedRun(sent)}"]
    assert process.returncode == code


def test_a_process_that_ignores_its_terminal_goes_on() -> None:
    ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{PROGRAM}"  # as nohup does
    process = started("-c", f"{ignoring}os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.5); say()")
    wait_for_line(process, "there")
    assert ended(process) == []


def test_nothing_more_is_said_on_a_terminal_that_is_closed(stop: stopping.Stop) -> None:
    """That of a run whose shards in flight are still to be published."""
    with Path("/dev/full").open("w", buffering=1, encoding="ascii") as full, pytest.raises(OutputError):
        Output(file=full).print("x")
    with Path("/dev/full").open("w", buffering=1, encoding="ascii") as full:
        stop.request(signal.SIGHUP)
        Output(file=full).print("x")


def test_children_have_signals_of_their_own() -> None:
    child = "subprocess.Popen(['grep', 'SigBlk', '/proc/self/status'], preexec_fn=lambda: None).wait()"
    process = started(
        "-c", f"{PROGRAM}\nfor line in open('/proc/self/status'):\n  'SigBlk' in line and os.write(1, line.encode())\n{child}"
    )
    blocked, of_child = (int(line.split()[1], 16) for line in process.communicate(timeout=PATIENCE)[0].splitlines())
    assert (blocked, of_child) == (sum(1 << number - 1 for number in signals.SIGNALS), 0)


def test_a_library_catches_nothing() -> None:
    modules = "bulkembed.cli.app, bulkembed.cluster.ray_executor, bulkembed.__main__"
    probe = f"import signal, {modules}; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    assert subprocess.check_output([sys.executable, "-c", probe], cwd=ROOT, text=True).strip() == "0"


def test_planning_notices_a_signal(tmp_path: Path, qwen: str, stop: stopping.Stop) -> None:
    write_corpus(tmp_path / "in")
    stop.request(signal.SIGTERM)
    with pytest.raises(InterruptedRun):
        open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))


def test_nobody_takes_a_signal_for_a_fault(stop: stopping.Stop) -> None:
    """Of the engine that `tune` measures, of an object that is planned, of a library that is called."""
    stop.request(signal.SIGTERM)
    with pytest.raises(InterruptedRun):
        try:
            stop.check()
        except Exception:  # noqa: BLE001
            pytest.fail("a signal was taken for a fault")


def run(tmp_path: Path, model: str, *more: object) -> list[object]:
    write_corpus(tmp_path / "in")
    places = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--model", model, "--max-tokens", "64")
    return ["run", *places, "--set", "engine.kind=simulated", "--set", "ray.num_cpus=2", *more]


# Longer than a test waits: what ends before has noticed the signal itself.
LONG_GRACE = ("--grace-seconds", 600)


@pytest.mark.ray
def test_a_signal_while_ray_starts_ends_the_run_and_all_of_ray(tmp_path: Path, qwen: str) -> None:
    process = started("-m", "bulkembed", *run(tmp_path, qwen, *LONG_GRACE))

    def has_raylet() -> bool:
        assert process.poll() is None, "the run ended before it could be disturbed"
        return any("raylet" in " ".join(command_of(child)) for child in psutil.Process(process.pid).children(recursive=True))

    wait_until(has_raylet, "a raylet")
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` does
    assert ended(process) == [f"bulkembed: {InterruptedRun(signal.SIGTERM)}"]
    assert process.returncode == 143
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.usefixtures("shared_ray")
def test_a_signal_while_the_model_loads_ends_the_run(tmp_path: Path, qwen: str) -> None:
    end_token = int(Tokenizer(f"{qwen}/tokenizer.json", 64, None).encode([""]).of(0)[-1])
    process = started("-m", "bulkembed", *run(tmp_path, qwen, "--set", f"engine.args.hang_on={end_token}", *LONG_GRACE))
    # Its first check of the vectors hangs.
    wait_until(lambda: any(" ".join(command_of(each)).startswith("ray::Worker.load_model") for each in processes_of_own_ray()), "a load")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == [f"bulkembed: {InterruptedRun(signal.SIGTERM)}"]
    assert process.returncode == 143


@pytest.mark.ray
def test_a_second_signal_while_the_snapshot_is_published_ends_the_run(tmp_path: Path, qwen: str) -> None:
    """The first one leaves the publishing its time."""
    stuck = "lambda *_: (print('publishing', flush=True), time.sleep(600))"
    patches = f"import time; from bulkembed.dataset import publishing; publishing.publish_snapshot = {stuck}"
    arguments = [str(each) for each in run(tmp_path, qwen)]
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    for folder in ("snapshots", "heads"):
        shutil.rmtree(tmp_path / "out/_meta" / folder)  # all is embedded, and nothing published
    process = started(
        "-c", f"from bulkembed.cli import signals\nsignals.catch()\n{patches}\nfrom bulkembed.cli.app import main\nmain({arguments!r})"
    )
    wait_for_line(process, "publishing")
    process.send_signal(signal.SIGTERM)
    wait_until_taken(process, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == []
    assert process.returncode == 143


SLOW = ("--set", "engine.tokens_per_second=600")


@pytest.mark.usefixtures("ray_here")
def test_kill_9_in_mid_run_loses_and_doubles_nothing(tmp_path: Path, qwen: str) -> None:
    rows = write_slow_corpus(tmp_path / "in")
    process = start(job(tmp_path, qwen, *SLOW, "--set", "ray.address=local"))
    wait_for_receipts(tmp_path / "out", 3, process)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(family, timeout=PATIENCE)  # Ray's processes notice that their driver is gone
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/data/*/*.parquet")}
    receipts = {path.stem for path in tmp_path.glob("out/_meta/receipts/*/*.json")}
    assert 3 <= len(receipts) < 12
    result = in_process(*job(tmp_path, qwen))
    assert result.returncode == 0, result.stderr
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    assert len(list(tmp_path.glob("out/data/*/*.parquet"))) == 12
    for path, written in before.items():
        if path.stem in receipts:
            assert path.stat().st_mtime_ns == written, "a finished shard was embedded again"


@pytest.mark.usefixtures("shared_ray", "ray_here")
def test_a_signal_lets_shards_in_flight_finish_and_ends_with_its_code(tmp_path: Path, qwen: str) -> None:
    """Two runs beside each other."""
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130}
    places = {number: tmp_path / number.name for number in codes}
    for place in places.values():
        write_slow_corpus(place / "in")
    slow = ("--set", "engine.tokens_per_second=1000", "--set", "engine.num_cpus=1")
    runs = {number: start(job(place, qwen, *slow)) for number, place in places.items()}

    def interrupt(number: signal.Signals) -> int:
        finished = len(wait_for_receipts(places[number] / "out", 2, runs[number]))
        runs[number].send_signal(number)
        return finished

    with ThreadPoolExecutor() as pool:
        finished = dict(zip(runs, pool.map(interrupt, runs), strict=True))
    for number, run in runs.items():
        _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == codes[number]
        assert "stopping: shards in flight have 25 s" in errors
        assert "run the same command again to resume" in errors
        # What was in flight is published: no data without its receipt.
        receipts = {path.stem for path in places[number].glob("out/_meta/receipts/*/*.json")}
        assert finished[number] < len(receipts) < 12
        assert {path.stem for path in places[number].glob("out/data/*/*.parquet")} == receipts
        assert in_process(*job(places[number], qwen)).returncode == 0


@pytest.mark.usefixtures("shared_ray", "ray_here")
def test_a_second_signal_ends_the_run_at_once(tmp_path: Path, qwen: str) -> None:
    write_slow_corpus(tmp_path / "in")
    process = start(job(tmp_path, qwen, "--set", "engine.tokens_per_second=100", *LONG_GRACE))  # 12.8 s for a shard
    wait_for_receipts(tmp_path / "out", 1, process)
    process.send_signal(signal.SIGTERM)
    wait_until_taken(process, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert all("once more to stop at once" in line for line in ended(process))  # the first signal may have been told already
    assert process.returncode == 143
    result = in_process(*job(tmp_path, qwen))
    assert result.returncode == 0, result.stderr
