"""The row `peers`: the job beside the tools that a user would choose instead.

All have the same documents, cores, token limit and engine dtype, from Parquet to Parquet. Each peer is a script of
`peer_scripts/`, which runs as a process and is measured from outside. A peer has all cores, eager vLLM without the prefix
cache, and the best of several batch sizes. It does not have the allocator settings, which are part of the job. The job runs
before each run of a peer, and its figure is the median.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from scripts.benchmarks import ratio
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype
from scripts.benchmarks.measuring import CommandRun, run_command
from scripts.benchmarks.peer_variants import PEERS, Variant, Work, peer_environment

MIN_ROUNDS = 3
TIME_LIMIT = "7200"  # seconds; a Ray Data graph with too few CPUs waits for ever


@dataclass(frozen=True)
class Result:
    rate: float  # documents/s while embedding
    wall: float
    memory: int


def peers(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M or 0.6B; repeatable. [default: minilm, 42M]")] = None,
    documents: Annotated[int, typer.Option(help="Documents of the demo corpus.")] = 10_000,
    peer: Annotated[list[str] | None, typer.Option(help="Peer; an unknown one prints the list; repeatable. [default: all]")] = None,
) -> Iterator[Row]:
    """The job beside sentence-transformers, Ray Data, Ray Data LLM.

    A row has the best variant of a peer, and the job, which alternates with it. `rate_over` is the job's rate over the
    peer's. `wall_over` and `memory_over` are the peer's wall time and peak memory over the job's. A peer that cannot run
    has a row with `problem`."""
    for unknown in set(peer or []) - set(PEERS):
        raise SystemExit(f"bench: --peer {unknown}: one of {'; '.join(PEERS)}")
    for name in model or ["minilm", "42M"]:
        yield from compare_with_peers(Work(name, documents, engine_dtype()), peer or list(PEERS))


def compare_with_peers(work: Work, peers: list[str]) -> Iterator[Row]:
    shutil.rmtree(work.out, ignore_errors=True)
    for peer in peers:
        try:
            for variants in by_dtype(PEERS[peer](work)):
                yield {"model": work.name, "peer": peer, **compare_with(work, variants)}
        except (RuntimeError, SystemExit) as failed:
            yield {"model": work.name, "peer": peer, "problem": cause(str(failed))}


def by_dtype(variants: list[Variant]) -> list[list[Variant]]:
    dtypes = dict.fromkeys(variant.dtype for variant in variants)
    return [[variant for variant in variants if variant.dtype == dtype] for dtype in dtypes]


def compare_with(work: Work, variants: list[Variant]) -> Row:
    """The fastest run of these variants, and the median of as many runs of the job. Raises RuntimeError where vectors differ."""
    ours, theirs = [], []
    for number in range(max(MIN_ROUNDS, len(variants))):
        variant = variants[number % len(variants)]
        ours.append(run_job(work))
        result = run_variant(work, variant)
        theirs.append((result, variant, agreement(vectors_of(WORK / "out-job" / "data"), vectors_of(work.out / "peer"))))
    best, variant, agreed = max(theirs, key=lambda candidate: candidate[0].rate)
    return row_of(best, variant, ours) | agreed


def run_job(work: Work) -> Result:
    run = ratio.run_job(work.name, corpus(work.documents), shard_rows=1000)
    return Result(run.documents / run.embedding_seconds, run.process.wall, int(run.process.peak))


def run_variant(work: Work, variant: Variant) -> Result:
    # Fewer documents first: the time of the first reads from disk must not count as embedding.
    fewer_wall = run_peer(work, variant, variant.fewer).wall if variant.fewer else 0.0
    run = run_peer(work, variant, variant.command)
    if not variant.fewer:
        clock = json.loads([line for line in run.output.splitlines() if line.startswith("{")][-1])
        return Result(clock["documents"] / clock["seconds"], run.wall, int(run.peak))
    if run.wall <= fewer_wall:
        raise RuntimeError("took as long for a third of the documents: give more of them")
    return Result((work.documents - work.third().documents) / (run.wall - fewer_wall), run.wall, int(run.peak))


def run_peer(work: Work, variant: Variant, command: list[str]) -> CommandRun:
    shutil.rmtree(work.out / "peer", ignore_errors=True)
    return run_command(["timeout", TIME_LIMIT, *command], os.environ | peer_environment() | variant.env)


def row_of(result: Result, variant: Variant, ours: list[Result]) -> Row:
    rate, wall, memory = (statistics.median(getattr(run, name) for run in ours) for name in ("rate", "wall", "memory"))
    return {
        "setting": variant.setting,
        "dtype": variant.dtype,
        "documents_per_s": round(result.rate, 1),
        "job_documents_per_s": [round(run.rate, 1) for run in ours],
        "rate_over": round(rate / result.rate, 2),
        "wall_s": round(result.wall, 1),
        "job_wall_s": [round(run.wall, 1) for run in ours],
        "wall_over": round(result.wall / wall, 2),
        "peak_gb": round(result.memory / 1e9, 2),
        "job_peak_gb": round(memory / 1e9, 2),
        "memory_over": round(result.memory / memory, 2),
    } | variant.notes


def cause(text: str) -> str:
    """The last line of a process's output that names an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"(Error|Exception)\b", line)]
    return (errors or lines or ["failed without output"])[-1][:300]


def vectors_of(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Full-width vectors of unit length by id, from all Parquet files below `folder`."""
    table = pa.concat_tables([pq.read_table(path, columns=["id", "embedding"]) for path in sorted(folder.rglob("*.parquet"))])
    column = table["embedding"].combine_chunks()
    # Ray writes tensors as an extension type whose storage is lists.
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    vectors = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(table.num_rows, -1)
    return dict(zip(table["id"].to_pylist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The least cosine between the job's and the peer's vectors.

    Raises RuntimeError where the work was not the same: where documents are missing, or more than one in a hundred has a
    cosine below 0.99."""
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"embedded {len(ours.keys() & theirs.keys())} of {len(ours)} documents, and {len(theirs)} in all")
    cosines = np.array([float(vector @ theirs[key]) for key, vector in ours.items()])
    share = float((cosines >= 0.99).mean())
    if share < 0.99:
        raise RuntimeError(f"other vectors: {share:.1%} of documents agree by a cosine of 0.99, the worst has {cosines.min():.4f}")
    return {"worst_cosine": round(float(cosines.min()), 5)}
