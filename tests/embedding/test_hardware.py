"""What a model runs in where nobody says: on hosts that are written down, and as a run goes from one to another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkembed.embedding import hardware
from bulkembed.runs.lookup import open_job
from bulkembed.shards import Shard
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, simulated

ZEN3, ZEN4 = "flags : fpu avx2", "flags : fpu avx2 avx512f avx512_bf16"


@pytest.fixture
def on_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for devices; the CPU's description goes into the file `cpu` beside it."""
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(hardware, "CPU_INFORMATION", tmp_path / "cpu")
    monkeypatch.setattr(hardware, "DEVICES", tmp_path / "dev")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "60000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_of_cores_is_found_and_leaves_one(
    files: dict[str, str], quota: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert hardware.cpu_quota() == quota
    assert hardware.usable_cores() == (64 if quota is None else max(1, int(quota)))


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "1048576\n", 1 << 20),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "2097152\n", 2 << 20),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("other", "", None),
    ],
)
def test_a_limit_of_memory_is_found(name: str, text: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    assert hardware.memory_limit() == limit
    assert hardware.usable_memory() == limit or (limit is None and hardware.usable_memory() > 1 << 28)


@pytest.mark.parametrize(
    ("cpu", "device", "address", "dtype"),
    [
        (ZEN4, None, None, "bfloat16"),
        (ZEN3, None, None, "float32"),
        ("Features : asimd bf16", None, None, "bfloat16"),
        ("", None, None, "float32"),
        (ZEN3, "nvidia0", None, "bfloat16"),
        (ZEN3, "nvidiactl", None, "float32"),  # a driver without a GPU
        (ZEN3, "kfd", None, "bfloat16"),
        (ZEN3, None, "10.0.0.1:6379", "bfloat16"),
    ],
)
def test_the_dtype_is_native_to_the_host(on_host: Path, cpu: str, device: str | None, address: str | None, dtype: str) -> None:
    (on_host / "cpu").write_text(cpu)
    if device:
        (on_host / "dev" / device).touch()
    assert hardware.engine_dtype(address) == dtype


@pytest.mark.parametrize(
    ("configured", "environment", "wanted"),
    [
        (None, None, None),
        ("", None, None),
        ("local", None, None),
        ("Local ", "10.0.0.1:6379", None),
        (None, "", None),
        (None, "local", None),
        ("", "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("auto", "local", "auto"),
        ("ray://head:10001", "local", "ray://head:10001"),
    ],
)
def test_local_and_empty_addresses_are_no_cluster(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, environment: str | None, wanted: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert hardware.cluster_address(configured) == wanted


def test_a_cluster_in_the_environment_counts_too(on_host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (on_host / "cpu").write_text(ZEN3)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert hardware.engine_dtype(None) == "bfloat16"


def test_another_kind_of_host_resumes_the_same_run(on_host: Path, qwen: str) -> None:
    write_corpus(on_host / "in")
    cfg = simulated(on_host / "in", on_host / "out", qwen)
    (on_host / "cpu").write_text(ZEN4)
    in_one_process(cfg)
    (on_host / "cpu").write_text(ZEN3)
    job, plan = open_job(cfg)
    assert (job.engine.dtype, plan.pending) == ("bfloat16", list[Shard]())
    other, fresh = open_job(cfg.model_copy(update={"output": str(on_host / "elsewhere")}))
    assert (other.engine.dtype, fresh.rows_pending) == ("float32", 200)
    assert (
        open_job(cfg.model_copy(update={"engine": cfg.engine.model_copy(update={"dtype": "float32"})}))[1].rows_pending == 200
    )  # what is asked for by name is done
