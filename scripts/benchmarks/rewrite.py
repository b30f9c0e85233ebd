"""The row `rewrite`: files with edits, rewritten by bulkembed and by plain pyarrow loops that read, filter and write the same files.

same       a loop that writes with the settings of bulkembed's own files
defaults   a loop that writes with pyarrow's defaults: dictionaries of float vectors, snappy
The loops drop the same rows, and add none. They write no receipt and no new name, and do not wait for the disk (fsync), as bulkembed does.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bulkembed import schema
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import parquet_file
from bulkembed.embedding.model_files import describe
from bulkembed.runs import rewrite as rewriting
from bulkembed.runs.job import Job
from bulkembed.runs.rewrite import FileEdit
from bulkembed.runs.stored_columns import data_schema
from bulkembed.shards import FileName, ShardId
from scripts.benchmarks import simulated
from scripts.benchmarks.material import Row
from scripts.benchmarks.measuring import seconds_of

CARRIED = pa.schema([pa.field("id", pa.string(), nullable=False), *(pa.field(name, pa.string()) for name in ("url", "title", "lang"))])
DROPPED, ADDED = 0.017, 0.015  # shares of the rows of a night: 1 % changed, 0.5 % new, 0.2 % deleted


def rewrite(
    files: Annotated[int, typer.Option(help="Files of each round.")] = 12,
    rows: Annotated[int, typer.Option(help="Rows of a file.")] = 8192,
    dim: Annotated[int, typer.Option(help="Components of a float16 vector; rows have some 100 bytes more.")] = 384,
    rounds: Annotated[int, typer.Option(help="Rounds of all, alternating, after a first one.")] = 7,
) -> Iterator[Row]:
    """Rewriting data files over plain pyarrow loops.

    All run in one thread of one process. Goal: 0.6 of a loop's rate."""
    with tempfile.TemporaryDirectory() as folder:
        job = job_in(Path(folder), dim)
        edits = [write_file(job, number, rows, dim) for number in range(files)]
        seconds: dict[str, list[float]] = {"bulkembed": [], "same": [], "defaults": []}
        for number in range(rounds + 1):
            works: dict[str, Callable[[FileEdit], object]] = {
                "bulkembed": partial(rewrite_anew, job, number),
                "same": partial(plain, job, Path(folder) / "plain.parquet", parquet_file.settings_of(data_schema(job))),
                "defaults": partial(plain, job, Path(folder) / "plain.parquet", {}),
            }
            for title, work in works.items():
                spent = seconds_of(partial(all_of, work, edits))
                if number:
                    seconds[title].append(spent)
        yield compare(seconds, files * rows) | {"files": files, "rows": rows, "dim": dim}


def all_of(work: Callable[[FileEdit], object], edits: list[FileEdit]) -> None:
    for edit in edits:
        work(edit)


def rewrite_anew(job: Job, parent: int, edit: FileEdit) -> None:
    """Another parent gives another name, so that nothing stands there yet."""
    rewriting.rewrite(replace(edit, parent=parent), job)


def compare(seconds: dict[str, list[float]], rows: int) -> Row:
    """Medians over the rounds. A ratio is the median of the rounds' own ratios."""
    ours = seconds["bulkembed"]
    ratios = {title: [theirs / mine for theirs, mine in zip(seconds[title], ours, strict=True)] for title in ("same", "defaults")}
    return {
        **{f"{title}_us_per_row": round(1e6 * statistics.median(spent) / rows, 2) for title, spent in seconds.items()},
        **{f"ratio_{title}": round(statistics.median(values), 3) for title, values in ratios.items()},
        "ratios_same": [round(value, 3) for value in ratios["same"]],
    }


def job_in(folder: Path, dim: int) -> Job:
    model = describe(str(simulated.model()), None)
    values = {
        "source": "/in",
        "output": str(folder),
        "model": model.name,
        "keep_columns": CARRIED.names[1:],
        "dims": [dim],
        "dtype": "float16",
    }
    cfg = RunConfig.model_validate(values | {"engine": {"kind": "simulated"}})
    return Job(cfg, model, resolve(cfg, model, "float32"), CARRIED)


def write_file(job: Job, number: int, rows: int, dim: int) -> FileEdit:
    """Writes a data file. Returns a night's edits of it."""
    random = np.random.default_rng(number)
    name = str(FileName(ShardId(f"{number:016x}", 0, rows, rows)))
    tail = [pa.array(random.integers(1, 300, rows), pa.int32()), pa.array([False] * rows), hashes(random, rows)]
    table = pa.Table.from_arrays([*carried(random, rows).columns, *tail], schema=pa.schema([*CARRIED, *schema.TAIL]))
    vectors: dict[str, npt.NDArray[np.generic]] = {"embedding": random.normal(size=(rows, dim)).astype(np.float16)}
    data = parquet_file.parquet_bytes(parquet_file.data_table(table, vectors, job.recipe.row_schema.vectors), job.provenance)
    job.store.put(job.ledger.data_uri(name), data)
    live = np.sort(random.choice(rows, rows - int(rows * DROPPED), replace=False))
    slots = random.integers(0, rows, int(rows * ADDED))
    return FileEdit(job.fingerprint, name, live, slots, carried(random, len(slots)), 0)


def carried(random: np.random.Generator, rows: int) -> pa.Table:
    """Ids and kept columns: some 80 bytes a row."""
    marks = random.integers(1 << 60, size=rows)
    columns = [[f"document-{mark:016x}" for mark in marks], [f"https://example.org/{mark:x}" for mark in marks]]
    return pa.table([*columns, [f"About {mark % 99991}" for mark in marks], ["en"] * rows], schema=CARRIED)


def hashes(random: np.random.Generator, rows: int) -> pa.Array:
    return pa.array([random.bytes(16) for _ in range(rows)], pa.binary(16))


def plain(job: Job, target: Path, settings: dict[str, Any], edit: FileEdit) -> None:
    """What a script of three lines does."""
    table = pq.read_table(job.ledger.data_uri(edit.name), use_threads=False)
    mask = np.zeros(table.num_rows, bool)
    mask[edit.live] = True
    pq.write_table(table.filter(pa.array(mask)), target, **settings)
