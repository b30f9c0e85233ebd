"""The row `reads`: documents from an S3 server over loopback, beside bare reads of the same bytes.

All run in this process. Rates are in MB/s of the objects as they are stored:

reader    bulkembed.source.reader over the shards of a plan: ranged GETs, decoded and checked row by row, as Python strings
fetched   the reader's time and bytes in ranged GETs alone (one thread only)
ranges    s3fs.cat_file of the same ranges
decoded   s3fs.cat_file of each object, and pyarrow (Parquet) or orjson (JSON lines) to Python strings, as every program must
bare      s3fs.cat_file of each object
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar
from unittest import mock

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.formats import parquet
from bulkembed.runs.lookup import open_job
from bulkembed.runs.picks import bounds_of
from bulkembed.source import planning, reader
from scripts.benchmarks import simulated
from scripts.benchmarks.material import Row
from scripts.benchmarks.measuring import seconds_of

T = TypeVar("T")
FORMATS = ("parquet", "jsonl", "lax")  # lax: JSON lines of which every LAX_EVERY-th has NaN in a field that is not read
LAX_EVERY = 100


def reads(
    files: Annotated[int, typer.Option(help="Objects of the corpus.")] = 4,
    rows: Annotated[int, typer.Option(help="Documents of each object; with few of them requests take most of the time.")] = 20_000,
    kind: Annotated[list[str] | None, typer.Option("--format", help="Format: parquet, jsonl or lax; repeatable. [default: all]")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Reading threads; repeatable. [default: 1, 4]")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds after a first one that opens connections.")] = 3,
) -> Iterator[Row]:
    """Reads from an S3 server, over bare reads of the same bytes.

    The server is on loopback. Goal: at least 0.8 of bare s3fs reads."""
    if importlib.util.find_spec("moto") is None:
        raise SystemExit('bench: needs an S3 server: pip install "moto[server]" (scripts/setup installs it)')
    from tests.support.s3 import s3_server

    model = simulated.model()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder)) as options:
        for name in kind or FORMATS:
            source = f"s3://corpus/{name}"
            names = upload(options, source, name, files, rows)
            values = {"source": source, "output": str(Path(folder) / "out"), "model": str(model), "storage": options}
            for count in threads or [1, 4]:
                yield {"format": name, "threads": count, **compare(RunConfig.model_validate(values), names, name, count, rounds)}


def upload(options: dict[str, Any], source: str, kind: str, files: int, rows: int) -> list[str]:
    """Uploads the corpus as objects of one format. Returns their names."""
    if kind not in FORMATS:
        raise SystemExit(f"bench: --format {kind}: one of {', '.join(FORMATS)}")
    store = s3(options)
    texts = list(simulated.texts([simulated.CHARACTERS] * (files * rows), simulated.CHARACTERS))
    suffix = "parquet" if kind == "parquet" else "jsonl"
    names = [f"{source.removeprefix('s3://')}/{number:04d}.{suffix}" for number in range(files)]
    for number, name in enumerate(names):
        part = range(number * rows, (number + 1) * rows)
        store.pipe_file(name, encode(kind, list(part), [texts[row] for row in part]))
    return names


def encode(kind: str, ids: list[int], texts: list[str]) -> bytes:
    if kind != "parquet":
        objects = [{"id": row, "text": text} for row, text in zip(ids, texts, strict=True)]
        for item in objects[::LAX_EVERY] if kind == "lax" else ():
            item["score"] = math.nan
        return "".join(json.dumps(item) + "\n" for item in objects).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "text": texts}), buffer, row_group_size=1000)
    return buffer.getvalue()


def s3(options: dict[str, Any]) -> Any:
    """A file system of its own, with the defaults of s3fs."""
    import s3fs

    return s3fs.S3FileSystem(**options, skip_instance_cache=True, use_listings_cache=False)


def compare(cfg: RunConfig, names: list[str], kind: str, threads: int, rounds: int) -> Row:
    job, plan = open_job(cfg)
    # Shards of all rows: a run embeds each text once, and the texts of this corpus repeat.
    shards, _ = planning.plan(job.store, plan.objects, lambda item, layout: None, job.recipe.vector_key.text_columns, bounds_of(job))
    store = s3(cfg.storage)
    megabytes = sum(int(store.info(name)["size"]) for name in names) / 1e6
    seconds: dict[str, list[float]] = {"reader": [], "decoded": [], "bare": []}
    works: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "reader": (lambda shard: reader.read_documents(job.store, shard, job.recipe, job.carried), shards),
        "decoded": (lambda name: decode(kind, store.cat_file(name)), names),
        "bare": (store.cat_file, names),
    }
    for number in range(rounds + 1):  # the first opens connections
        for title, (work, items) in works.items():
            spent = seconds_in_threads(work, items, threads)
            if number:
                seconds[title].append(spent)
    ours, theirs, least = (seconds[title] for title in ("reader", "decoded", "bare"))
    bare = megabytes / statistics.median(least)
    fetches = fetch_rates(works["reader"][0], shards, store, rounds) if threads == 1 else None
    return {
        "megabytes": round(megabytes, 1),
        "shards": len(shards),
        **{f"{title}_mb_per_s": round(megabytes / statistics.median(rounds_seconds), 1) for title, rounds_seconds in seconds.items()},
        "reader_over_decoded": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 3),
        "reader_over_bare": round(statistics.median(b / a for a, b in zip(ours, least, strict=True)), 3),
        **(fetched_row(*fetches, bare) if fetches else {}),
    }


def fetched_row(fetched: float, ranges: float, bare: float) -> Row:
    return {
        "fetched_mb_per_s": round(fetched, 1),
        "fetched_over_bare": round(fetched / bare, 3),
        "fetched_over_ranges": round(fetched / ranges, 3),
    }


def fetch_rates(work: Callable[[Any], object], shards: Sequence[Any], store: Any, rounds: int) -> tuple[float, float]:
    """MB/s of the reader's own ranged GETs, and of bare GETs of the same ranges, one after the other. Medians over the rounds."""
    rates = []
    for _ in range(rounds):
        parquet.footer.cache_clear()
        ranges, spent = fetches_of(work, shards)
        megabytes = sum(stop - start for _, start, stop in ranges) / 1e6
        bare_seconds = seconds_of(partial(read_ranges, store, ranges))
        rates.append((megabytes / spent, megabytes / bare_seconds))
    fetched, bare = zip(*rates, strict=True)
    return statistics.median(fetched), statistics.median(bare)


def read_ranges(store: Any, ranges: list[tuple[str, int, int]]) -> None:
    for name, start, stop in ranges:
        store.cat_file(name, start=start, end=stop)


def fetches_of(work: Callable[[Any], object], shards: Sequence[Any]) -> tuple[list[tuple[str, int, int]], float]:
    """Every (name, start, stop) that the reader requests, and the seconds in these requests."""
    from s3fs import S3File

    fetch, spent, ranges = S3File._fetch_range, 0.0, []

    def fetch_with_clock(file: Any, start: int, end: int) -> bytes:
        nonlocal spent
        began = time.perf_counter()
        data: bytes = fetch(file, start, end)
        spent += time.perf_counter() - began
        ranges.append((file.path, start, start + len(data)))
        return data

    with mock.patch.object(S3File, "_fetch_range", fetch_with_clock):
        for shard in shards:
            work(shard)
    return ranges, spent


def decode(kind: str, data: bytes) -> list[Any]:
    if kind != "parquet":
        return [(json.loads if kind == "lax" and b"NaN" in line else orjson.loads)(line)["text"] for line in data.splitlines()]
    texts: list[Any] = pq.ParquetFile(pa.BufferReader(data)).read(["id", "text"], use_threads=False)["text"].to_pylist()
    return texts


def seconds_in_threads(work: Callable[[T], object], items: Sequence[T], threads: int) -> float:
    """Seconds of `work` on all items, start and end of the threads included. Results are dropped one by one."""

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, items):
                continue

    return seconds_of(run)
