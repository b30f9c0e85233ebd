"""Leases: one run at a time on a line, however another one ended, slept or lies."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bulkembed import stopping
from bulkembed.cli.app import main
from bulkembed.dataset import leases, paths
from bulkembed.dataset.json_records import write_record
from bulkembed.dataset.lease_holders import Holder, beginning, place, this_process
from bulkembed.dataset.leases import IfRunning, LeaseRecord, lease, read_lease, require_create_only
from bulkembed.dataset.live_leases import live_leases
from bulkembed.dataset.store_clock import store_time
from bulkembed.errors import AlreadyRunning, ConfigError, InterruptedRun, LeaseLost
from bulkembed.runs.lookup import open_job
from bulkembed.storage import store as stores
from bulkembed.storage.store import Store
from tests.support.corpora import write_small_corpus
from tests.support.counted_s3 import CountedS3
from tests.support.processes import PATIENCE, wait_until
from tests.support.runs import simulated
from tests.support.snapshots import publish_files

STORE = Store()
ELSEWHERE = Holder("0123456789abcdef", "gpu-7", 4711, "another kernel", "1", "2026-11-27T02:00:00+00:00")


def held_elsewhere(store: Store, output: str, line: str = "l", holder: Holder = ELSEWHERE, seconds: float = 60) -> str:
    """Writes the lease of a run on another host. Returns its URI."""
    uri = paths.numbered_uri(paths.leases_folder(output, line), 1)
    write_record(store, uri, asdict(LeaseRecord(holder, 0, seconds)))
    return uri


def taken(output: str, if_running: IfRunning = "fail", seconds: float = 60, store: Store = STORE) -> int:
    """The epoch of a lease that is released at once."""
    with lease(store, output, "l", False, seconds, if_running) as held:
        held.check()
        return held.epoch


def test_a_lease_is_free_when_its_run_has_ended(tmp_path: Path, s3: dict[str, Any]) -> None:
    for store, output in ((STORE, str(tmp_path)), (Store(s3), f"s3://corpus/{tmp_path.name}")):
        publish_files(store, output, "a")
        with lease(store, output, "l", False, 60, "fail"):
            (live,) = live_leases(store, output, store_time(store, output))
            assert (live.line, live.base) == ("l", 1)
        with pytest.raises(RuntimeError), lease(store, output, "l", False, 60, "fail"):
            raise RuntimeError
        assert taken(output, store=store) == 3
        assert live_leases(store, output, store_time(store, output) + 1) == []


@pytest.mark.parametrize(("if_running", "code"), [("skip", 0), ("fail", 1)])
def test_a_second_run_says_which_one_is_there(tmp_path: Path, if_running: IfRunning, code: int) -> None:
    held_elsewhere(STORE, str(tmp_path))
    with pytest.raises(AlreadyRunning) as refused:
        taken(str(tmp_path), if_running)
    assert refused.value.exit_code == code
    assert str(refused.value).startswith(
        "run 01234567 on gpu-7 (process 4711), since 2026-11-27T02:00:00+00:00 is already writing to line l"
    )
    with lease(STORE, str(tmp_path), "another line", False, 60, "fail"):
        pass


def while_waiting(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """What happens while a run waits for another one, instead of the time that passes."""
    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=lambda seconds: happens()))


def test_a_run_that_is_told_to_wait_begins_when_the_other_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_elsewhere(STORE, str(tmp_path), seconds=60)
    while_waiting(monkeypatch, lambda: held_elsewhere(STORE, str(tmp_path), seconds=0))
    with lease(STORE, str(tmp_path), "l", False, 0.3, "wait") as held:
        assert (held.epoch, held.waited) == (2, True)


def test_a_run_waits_for_another_one_of_its_own_process_and_hears_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(STORE, str(tmp_path), "l", False, 60, "fail"):
        monkeypatch.setattr(stopping.stop, "signal", 0)
        while_waiting(monkeypatch, lambda: monkeypatch.setattr(stopping.stop, "signal", 15))
        with pytest.raises(InterruptedRun):
            taken(str(tmp_path), "fail", seconds=0.3)
        monkeypatch.setattr(stopping.stop, "signal", 0)


def test_a_dead_run_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = replace(ELSEWHERE, place=place(), process=process.pid, began=beginning(process.pid))
    held_elsewhere(STORE, str(tmp_path), holder=alive)
    with pytest.raises(AlreadyRunning):
        taken(str(tmp_path))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert taken(str(tmp_path)) == 2, "nobody has waited for the process yet"
    process.communicate()
    assert not this_process().is_gone


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_silent_run_is_taken_over_and_cannot_publish_when_it_wakes(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = STORE if where == "local" else Store(request.getfixturevalue("s3"))
    output = str(tmp_path) if where == "local" else f"s3://corpus/{tmp_path.name}"
    with lease(store, output, "l", False, 60, "fail") as paused:
        record = replace(paused.record, holder=ELSEWHERE, seconds=0.5)
        write_record(store, paths.numbered_uri(paths.leases_folder(output, "l"), 1), asdict(record))
        paused.check()
        with lease(store, output, "l", False, 0.5, "wait") as next_one:
            assert next_one.epoch == 2
            next_one.check()
            with pytest.raises(LeaseLost, match=r"no sign of life for 60 s, and run \w{8} on .* has taken over line l"):
                paused.check()
    assert taken(output, store=store) == 3


def test_heartbeats_keep_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holder, "is_here", property(lambda self: False))
    monkeypatch.setattr(leases, "BEATS", 600)
    record = Path(paths.numbered_uri(paths.leases_folder(str(tmp_path), "l"), 1))
    beat = Path(paths.beat_uri(str(tmp_path), "l", 1))
    with lease(STORE, str(tmp_path), "l", False, 60, "fail") as held:
        for _ in range(2):
            wait_until(beat.exists, "a heartbeat")
            for path in (record, beat):
                os.utime(path, (1000, 1000))
            wait_until(lambda: beat.stat().st_mtime > 1000, "another heartbeat")
            with pytest.raises(AlreadyRunning):
                taken(str(tmp_path))
        held.check()
    assert read_lease(STORE, str(tmp_path), "l", 1).seconds == 0


def test_a_store_that_only_pretends_to_create_is_refused(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def replacing(filesystem: Any, path: str, data: bytes) -> bool:
        filesystem.pipe_file(path, data)
        return False

    monkeypatch.setattr(stores, "_create_remote", replacing)
    store = Store(s3)
    with pytest.raises(ConfigError, match="replaces objects that it is told only to create"):
        taken("s3://corpus/pretends", store=store)
    assert [item.uri for item in store.objects("s3://corpus/") if "/pretends/" in item.uri] == []


def test_a_store_without_create_only_puts_is_named_in_the_log(
    s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(s3 | {"default_block_size": 6 << 20})  # a file system of its own
    filesystem = store._locate("s3://corpus/")[0]
    original = filesystem.pipe_file

    def pipe_file(path: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise NotImplementedError
        original(path, data)

    monkeypatch.setattr(filesystem, "pipe_file", pipe_file)
    with caplog.at_level(logging.WARNING):
        assert taken("s3://corpus/looking", store=store) == 1
    assert "never let two runs write to it at once" in caplog.text


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_store_that_looks_before_it_writes_is_named_in_the_log(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that looks and then writes, or a folder without hard links: a later writer fails, and two at once both succeed."""
    store = STORE if where == "local" else Store(request.getfixturevalue("s3"))
    output = str(tmp_path) if where == "local" else f"s3://corpus/{tmp_path.name}"
    monkeypatch.setattr(stores, "_looking", set())

    both = threading.Barrier(2, timeout=PATIENCE)  # of the two writers whose objects are named after this run

    def look_and_write(filesystem: Any, path: str, data: bytes) -> bool:
        if filesystem.exists(path):
            raise FileExistsError(path)
        if "/clock/" in path:
            both.wait()
        filesystem.pipe_file(path, data)
        return False

    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(stores, "_create_remote", look_and_write)
    monkeypatch.setattr(os, "link", no_link)
    with caplog.at_level(logging.WARNING):
        assert taken(output, store=store) == 1
        assert taken(output, store=store) == 2
    assert caplog.text.count("never let two runs write to it at once") == 2


def test_a_store_is_asked_twice_at_once_and_no_more(
    s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both, create = threading.Barrier(2, timeout=PATIENCE), Store.create

    def create_with_the_other(store: Store, uri: str, data: bytes) -> bool:
        both.wait()
        return create(store, uri, data)

    monkeypatch.setattr(Store, "create", create_with_the_other)
    with CountedS3(s3["endpoint_url"]) as proxy, caplog.at_level(logging.WARNING):
        require_create_only(Store(s3 | {"endpoint_url": proxy.url}), "s3://corpus/asked")
    assert proxy.kinds() == {"PUT": 2, "DELETE": 1}
    assert not caplog.text


def test_a_nightly_beside_another_one_ends_with_one_line(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    held_elsewhere(STORE, cfg.output, line=open_job(cfg)[0].recipe.line)
    flags = ["--source", cfg.source_text, "--output", cfg.output, "--model", qwen, "--max-tokens", "64", "--set", "engine.kind=simulated"]
    for if_running, code in (("skip", 0), ("fail", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["run", *flags, "--if-running", if_running])
        assert ended.value.code == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("bulkembed: run 01234567 on gpu-7 (process 4711), since ")
    assert not (tmp_path / "out/data").exists()
