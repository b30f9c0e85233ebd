"""Whole runs through a proxy that breaks requests, and on a disk without room."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import ObjectError
from bulkembed.formats.known import FORMATS
from bulkembed.formats.parquet import PARQUET
from bulkembed.inspection.verify import verify
from bulkembed.runs.lookup import open_job
from bulkembed.runs.stages import prepare
from bulkembed.source import reader
from bulkembed.storage import retry, store
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.faulty_s3 import FaultyS3, serving
from tests.support.processes import ROOT
from tests.support.runs import in_one_process, read_dataset, simulated

QUICK = {"config_kwargs": {"read_timeout": 1.0}}  # of requests that stall


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once. `test_store` has the real waits."""
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)


def uploaded(tmp_path: Path, s3: dict[str, Any]) -> str:
    write_corpus(tmp_path / "in", files=2)
    root = f"s3://corpus/{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        Store(s3).put(f"{root}/in/{path.name}", path.read_bytes())
    return root


def through(proxy: FaultyS3, s3: dict[str, Any], root: str, qwen: str, **options: Any) -> RunConfig:
    return simulated(f"{root}/in", f"{root}/out", qwen, storage=s3 | {"endpoint_url": proxy.url} | options)


@pytest.mark.parametrize("fault", ["500", "503", "reset", "truncate", "stall", "latency"])
def test_a_store_that_breaks_requests_loses_and_doubles_nothing(tmp_path: Path, qwen: str, s3: dict[str, Any], fault: str) -> None:
    root = uploaded(tmp_path, s3)
    in_one_process(simulated(tmp_path / "in", tmp_path / "undisturbed", qwen))
    rate, options = (0.05, QUICK) if fault in ("stall", "latency") else (0.2, {})
    with FaultyS3(s3["endpoint_url"], seed=7, rate=rate, faults=[fault], stall_seconds=3) as proxy:
        summary = in_one_process(through(proxy, s3, root, qwen, **options))
        summary.require_complete()
        assert proxy.counts[fault] > 3
    assert summary.progress.counts.retries > 0
    assert read_dataset(f"{root}/out", **s3).equals(read_dataset(tmp_path / "undisturbed"))
    assert list(verify(Store(s3), *newest_dataset(Store(s3), f"{root}/out"))) == []


def test_expired_credentials_end_the_run_clearly_and_it_resumes(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    root = uploaded(tmp_path, s3)
    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=[]) as proxy:
        cfg = through(proxy, s3, root, qwen).model_copy(update={"max_failures": 3})

        def expire(progress: Any) -> None:
            proxy.faults = ["expired"] if progress.shards == 2 else proxy.faults

        summary = in_one_process(cfg, expire)
        assert summary.snapshot is None
        assert len(summary.failures) == 3, "gives up after max_failures"
        assert all("check or renew the credentials" in failure.reason for failure in summary.failures)
        assert proxy.counts["expired"] < 20, "what is final is not tried again"
        proxy.faults = []
        again = in_one_process(cfg)
        again.require_complete()
        assert again.night.adopted == again.night.added - again.progress.counts.documents > 0
    assert list(verify(Store(s3), *newest_dataset(Store(s3), f"{root}/out"))) == []


def test_an_object_that_changes_between_plan_and_read_fails_its_shard(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    root = uploaded(tmp_path, s3)
    job, plan = open_job(simulated(f"{root}/in", f"{root}/out", qwen, storage=s3))
    Store(s3).put(f"{root}/in/part-0.parquet", (tmp_path / "in" / "part-1.jsonl").read_bytes())
    with pytest.raises(ObjectError, match="changed since"):
        prepare(plan.pending[0], job)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_object_that_changes_while_it_is_read_fails_its_shard(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    write_corpus(tmp_path / "in")
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    original = PARQUET.rows

    def read_and_change(*arguments: Any) -> Any:
        rows = original(*arguments) if when == "after" else None
        (tmp_path / "in" / "part-0.parquet").write_bytes((tmp_path / "in" / "part-2.parquet").read_bytes())
        return rows or original(*arguments)

    monkeypatch.setitem(FORMATS, "parquet", replace(PARQUET, rows=read_and_change))
    with pytest.raises(ObjectError, match="changed since"):
        prepare(plan.pending[0], job)


def test_a_shard_is_one_get_and_a_footer_is_read_once(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    root = uploaded(tmp_path, s3)
    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=[]) as proxy:
        job, plan = open_job(through(proxy, s3, root, qwen))
        assert {shard.parts[0].format for shard in plan.pending} == {"parquet", "jsonl"}
        assert len(plan.pending) > 2
        proxy.methods.clear()
        for shard in plan.pending:
            reader.read_documents(job.store, shard, job.recipe, job.carried)
        assert proxy.methods == {"GET": len(plan.pending) + 1, "HEAD": 2 * len(plan.pending) + 1}


def test_compressed_lines_are_read_in_large_blocks_however_small_the_shard(
    tmp_path: Path, qwen: str, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "READ_AHEAD_BYTES", 64 << 10)
    monkeypatch.setattr(store, "MIN_READ_AHEAD_BYTES", 1 << 10)
    lines = [json.dumps({"id": number, "text": random.Random(number).randbytes(500).hex(), "lang": "xx"}) for number in range(800)]
    packed = gzip.compress("\n".join(lines).encode())
    root = f"s3://corpus/{tmp_path.name}"
    Store(s3).put(f"{root}/in/a.jsonl.gz", packed)
    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=[]) as proxy:
        job, plan = open_job(through(proxy, s3, root, qwen))
        assert len(plan.pending) == 40
        proxy.methods.clear()
        reader.read_documents(job.store, plan.pending[-1], job.recipe, job.carried)
        assert proxy.methods["GET"] == 1, "and not one for each 16 KiB, as the text of 20 rows has"


@pytest.mark.parametrize("name", ["part-0.parquet", "part-1.jsonl"])
def test_a_source_whose_open_files_know_no_version(tmp_path: Path, qwen: str, name: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    application = web.Application()
    application.router.add_static("/", tmp_path / "in")
    with serving(application) as url:  # fsspec's HTTP files have no ETag among their details
        in_one_process(simulated(f"{url}/{name}", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out").num_rows > 40


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.support.runs import in_one_process, simulated
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # no file may grow beyond it: key files are larger, receipts are not
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from bulkembed.errors import StorageError
try:
    in_one_process(simulated(*sys.argv[1:4]))
except StorageError as error:
    print(error)
"""


def test_a_disk_without_room_leaves_nothing_half_written(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "in"), str(tmp_path / "out"), qwen]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "File too large" in result.stdout, result.stderr
    assert not list(tmp_path.glob("out/data/*/*"))
    assert not list(tmp_path.glob("out/data/*/.*"))
    assert not list(tmp_path.glob("out/_meta/keys/*/*")) + list(tmp_path.glob("out/_meta/keys/*/.*"))
    assert not list(tmp_path.glob("out/_meta/receipts/*/*"))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert list(verify(Store(), *newest_dataset(Store(), str(tmp_path / "out")))) == []
