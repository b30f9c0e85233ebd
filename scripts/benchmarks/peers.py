"""The job beside what a user would pick instead: the same documents, cores, token limit and engine dtype, Parquet to Parquet.

Each peer is a script of `peer_scripts/`, run as a process and measured from outside. Peers get their best: all cores, eager
vLLM without the prefix cache, the best of several batch sizes; not the allocator settings that the job brings along. The
job runs before each run of a peer, and is the median of these.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from scripts.benchmarks import peer_environments, ratio
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, measured, model_folder, shape_of

SCRIPTS = Path(__file__).parent / "peer_scripts"
BATCHES = (8, 32, 128)  # of sentence-transformers: 32 is its default; shorter ones pad less
TURNS = 3  # at least, of the job and a peer
TIME_LIMIT = "7200"  # seconds: a Ray Data graph short of CPUs waits for ever


@dataclass(frozen=True)
class Variant:
    """A command, and what the row says of it. The last line that it prints is {"documents", "seconds"}, of its own clock; where
    it has none, `fewer` is the same over a third of the documents."""

    setting: str
    dtype: str
    command: list[str]
    fewer: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What the job and all peers are given."""

    name: str
    documents: int
    dtype: str

    @property
    def model(self) -> str:
        return str(model_folder(self.name))

    @property
    def out(self) -> Path:
        return WORK / "out"

    def third(self) -> Work:
        return replace(self, documents=self.documents // 3)

    def arguments(self, model: str, dtype: str) -> list[str]:
        return [model, str(corpus(self.documents)), str(self.out / "peer"), str(shape_of(self.name).max_tokens), dtype]


@dataclass(frozen=True)
class Result:
    rate: float  # documents/s while embedding
    wall: float
    memory: int


def peers(
    model: Annotated[list[str] | None, typer.Option(help="minilm, 42M or 0.6B; repeatable. [default: minilm, 42M]")] = None,
    documents: int = 10_000,
    peer: Annotated[list[str] | None, typer.Option(help="Repeatable. [default: all]")] = None,
) -> Iterator[Row]:
    """A row for the best variant of each peer, and the job in turns with it. `..._over` is how many times the job is ahead: its
    rate over the peer's, the peer's wall and peak memory over the job's. What cannot run is a row with `problem`."""
    for unknown in set(peer or []) - set(PEERS):
        raise SystemExit(f"bench: --peer {unknown}: one of {', '.join(PEERS)}")
    for name in model or ["minilm", "42M"]:
        yield from beside(Work(name, documents, engine_dtype()), peer or list(PEERS))


def beside(work: Work, wanted: list[str]) -> Iterator[Row]:
    shutil.rmtree(work.out, ignore_errors=True)
    for peer in wanted:
        try:
            for variants in by_dtype(PEERS[peer](work)):
                yield {"model": work.name, "peer": peer, **in_turns(work, variants)}
        except (RuntimeError, SystemExit) as failed:
            yield {"model": work.name, "peer": peer, "problem": cause(str(failed))}


def by_dtype(variants: list[Variant]) -> list[list[Variant]]:
    return [[each for each in variants if each.dtype == dtype] for dtype in dict.fromkeys(each.dtype for each in variants)]


def in_turns(work: Work, variants: list[Variant]) -> Row:
    """The fastest run of these variants beside the median of as many of the job. Raises RuntimeError where vectors differ."""
    ours, theirs = [], []
    for number in range(max(TURNS, len(variants))):
        variant = variants[number % len(variants)]
        ours.append(run_job(work))
        result = run_variant(work, variant)
        theirs.append((result, variant, agreement(vectors_of(WORK / "out-job" / "data"), vectors_of(work.out / "peer"))))
    best, variant, agreed = max(theirs, key=lambda each: each[0].rate)
    return row(best, variant, ours) | agreed


def run_job(work: Work) -> Result:
    ran = ratio.run_job(work.name, corpus(work.documents), shard_rows=1000)
    return Result(ran.documents / ran.embedding, ran.process.wall, int(ran.process.peak))


def run_variant(work: Work, variant: Variant) -> Result:
    # The fewer documents first: what is read from the disk for the first time must not be taken for embedding.
    fewer_wall = run_peer(work, variant, variant.fewer)[2] if variant.fewer else 0.0
    printed, memory, wall = run_peer(work, variant, variant.command)
    if not variant.fewer:
        said = json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])
        return Result(said["documents"] / said["seconds"], wall, memory)
    if wall <= fewer_wall:
        raise RuntimeError("took as long for a third of the documents: give more of them")
    return Result((work.documents - work.third().documents) / (wall - fewer_wall), wall, memory)


def run_peer(work: Work, variant: Variant, command: list[str]) -> tuple[str, int, float]:
    shutil.rmtree(work.out / "peer", ignore_errors=True)
    return measured(["timeout", TIME_LIMIT, *command], os.environ | cores() | variant.env)


def cores() -> dict[str, str]:
    """All cores for the engine, of which vLLM would keep one free, and a cache that one step fills: one GiB."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }


def row(result: Result, variant: Variant, ours: list[Result]) -> Row:
    rate, wall, memory = (statistics.median(getattr(each, name) for each in ours) for name in ("rate", "wall", "memory"))
    return {
        "setting": variant.setting,
        "dtype": variant.dtype,
        "documents_per_s": round(result.rate, 1),
        "job_documents_per_s": [round(each.rate, 1) for each in ours],
        "ours_over": round(rate / result.rate, 2),
        "wall_s": round(result.wall, 1),
        "job_wall_s": [round(each.wall, 1) for each in ours],
        "wall_over": round(result.wall / wall, 2),
        "peak_gb": round(result.memory / 1e9, 2),
        "job_peak_gb": round(memory / 1e9, 2),
        "memory_over": round(result.memory / memory, 2),
    } | variant.notes


def cause(text: str) -> str:
    """The last line that names an error, of all that a process said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"(Error|Exception)\b", line)]
    return (errors or lines or ["failed without a word"])[-1][:300]


def vectors_of(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Full-width vectors of unit length by id, from all Parquet files below `folder`."""
    table = pa.concat_tables([pq.read_table(path, columns=["id", "embedding"]) for path in sorted(folder.rglob("*.parquet"))])
    column = table["embedding"].combine_chunks()
    # Ray writes tensors as an extension type of lists.
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    vectors = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(table.num_rows, -1)
    return dict(zip(table["id"].to_pylist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))


def agreement(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The worst cosine between the job's and the peer's vectors. Nobody is compared on different work: raises
    RuntimeError where documents are missing or more than one in a hundred have a cosine below 0.99."""
    if wanted.keys() != found.keys():
        raise RuntimeError(f"embedded {len(wanted.keys() & found.keys())} of {len(wanted)} documents, and {len(found)} in all")
    cosines = np.array([float(vector @ found[key]) for key, vector in wanted.items()])
    share = float((cosines >= 0.99).mean())
    if share < 0.99:
        raise RuntimeError(f"other vectors: {share:.1%} of documents agree by a cosine of 0.99, the worst has {cosines.min():.4f}")
    return {"worst_cosine": round(float(cosines.min()), 5)}


def sentence_transformers(work: Work) -> list[Variant]:
    script = str(SCRIPTS / "sentence_transformers_peer.py")
    return [
        Variant(f"batches of {batch}", dtype, [sys.executable, script, *work.arguments(work.model, dtype), "torch", str(batch)])
        for dtype in dict.fromkeys([work.dtype, "float32"])
        for batch in BATCHES
    ]


def openvino(work: Work) -> list[Variant]:
    """The export is made once and counts for no rate."""
    python, folder = str(peer_environments.openvino()), WORK / f"openvino-{work.name}"
    said = folder / "export.json"
    if not said.exists():
        shutil.rmtree(folder, ignore_errors=True)
        printed, _, _ = measured([python, str(SCRIPTS / "openvino_export.py"), work.model, str(folder)], os.environ | cores())
        said.write_text(printed.splitlines()[-1])
    notes = {"export_s": round(json.loads(said.read_text())["seconds"], 1)}
    script = str(SCRIPTS / "sentence_transformers_peer.py")
    return [
        Variant(
            f"batches of {batch}",
            work.dtype,
            [python, script, *work.arguments(str(folder), work.dtype), "openvino", str(batch)],
            notes=notes,
        )
        for batch in BATCHES
    ]


def ray_data(work: Work) -> list[Variant]:
    return [ray_graph(work, "ray_data_peer.py", 256)]


def ray_data_llm(work: Work) -> list[Variant]:
    """Its rate comes from the walls of two corpora. A clock behind the engine finds no core there until the engine has ended."""
    return [
        replace(ray_graph(work, script, batch), fewer=ray_graph(work.third(), script, batch).command, notes={"rate": "from walls"})
        for script, batch in (("ray_data_llm_peer.py", 32), ("ray_data_llm_peer.py", 128))
    ]


def ray_graph(work: Work, script: str, batch: int) -> Variant:
    command = [sys.executable, str(SCRIPTS / script), *work.arguments(work.model, work.dtype), str(batch)]
    return Variant(f"batches of {batch}", work.dtype, command, env={"PYTHONPATH": str(peer_environments.ray_data())})


PEERS: dict[str, Callable[[Work], list[Variant]]] = {
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, OpenVINO": openvino,
    "Ray Data": ray_data,
    "Ray Data LLM": ray_data_llm,
}
