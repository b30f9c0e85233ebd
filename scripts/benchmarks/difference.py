"""The row `difference`: the keys of two nights that differ a little, joined by the job's partitions and by DuckDB, on one core.

The command `python -m scripts.benchmarks.difference ENGINE FOLDER` takes one difference and prints what it took."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
import pyarrow as pa
import typer

from bulkembed.row_keys import Keys
from bulkembed.runs.buckets import KeySet, Owner, Workplace
from bulkembed.runs.exchange import StoreExchange, bytes_of, keys_of
from bulkembed.runs.mapper import LocalMapper
from bulkembed.runs.partitions import night_difference
from bulkembed.storage.store import Store
from scripts.benchmarks.material import WORK, Row
from scripts.benchmarks.measuring import peak_bytes, run_module

ROWS_PER_OBJECT = 100_000
CHANGED, NEW, DELETED = 0.01, 0.005, 0.002  # shares of the documents, from one night to the next
SIDES = ("old", "new")


def difference(
    rows: Annotated[list[int] | None, typer.Option(help="Keys of both nights; repeatable. [default: 100000, 1000000, 10000000]")] = None,
) -> Iterator[Row]:
    """What differs in the keys of two nights, and DuckDB beside it.

    DuckDB runs EXCEPT ALL both ways. The second night is shuffled: 1 % changed, 0.5 % new, 0.2 % deleted. One core.
    Goal for 10,000,000 keys: at most 60 s and 1 GB."""
    for count in rows or [100_000, 1_000_000, 10_000_000]:
        folder = two_nights(count)
        ours, peer = (json.loads(run_module("difference", engine, folder).output) for engine in ENGINES)
        if (ours["gone"], ours["came"]) != (peer["gone"], peer["came"]):
            raise SystemExit(f"bench: bulkembed found {ours['gone']} and {ours['came']}, DuckDB {peer['gone']} and {peer['came']}")
        yield {"rows": count, **ours} | {f"duckdb_{name}": peer[name] for name in ("seconds", "cpu_s", "peak_mb")}


def two_nights(rows: int) -> Path:
    """A folder for each night with the keys of its objects, a file each."""
    folder = WORK / f"keys-{rows}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        random = np.random.default_rng(0)
        old = random_keys(random, rows // 2)
        for side, keys in zip(SIDES, (old, next_night(random, old)), strict=True):
            (partial / side).mkdir(parents=True)
            for number, start in enumerate(range(0, len(keys), ROWS_PER_OBJECT)):
                part = keys.take(np.arange(start, min(start + ROWS_PER_OBJECT, len(keys))))
                (partial / side / f"{number:05d}.arrow").write_bytes(bytes_of(replace(part, rows=part.rows - start)))
        partial.rename(folder)
    return folder


def random_keys(random: np.random.Generator, count: int) -> Keys:
    ids, contents, kept = (random.integers(0, 2**64, (count, 2), np.uint64) for _ in range(3))
    return Keys(ids, contents, kept, np.arange(count), np.zeros(count, np.int32))


def next_night(random: np.random.Generator, old: Keys) -> Keys:
    """Some contents are others, some documents are new, some are gone, and all are shuffled."""
    changed = random.random(len(old)) < CHANGED
    contents = old.contents.copy()
    contents[changed] = random.integers(0, 2**64, (int(changed.sum()), 2), np.uint64)
    stay = replace(old, contents=contents).take(np.flatnonzero(random.random(len(old)) >= DELETED))
    new = Keys.concat([stay, random_keys(random, int(NEW * len(old)))])
    return replace(new.take(random.permutation(len(new))), rows=np.arange(len(new)))


def by_partitions(folder: Path) -> dict[str, int]:
    """As a run does it, in one process: through the store where there is more than one partition."""
    old, new = (key_set(folder / side) for side in SIDES)
    exchange = StoreExchange(Store(), str(folder / "exchange"))
    partitions = Workplace(lambda size: LocalMapper(1), exchange).partitions(old.documents + new.documents)
    found = night_difference(old, new, partitions)
    exchange.remove()
    return {"partitions": partitions.buckets, "gone": found.gone, "came": found.came}


def key_set(folder: Path) -> KeySet:
    files = sorted(folder.iterdir())
    sizes = [pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0).num_rows for file in files]
    return KeySet([Owner(number, file, size) for number, (file, size) in enumerate(zip(files, sizes, strict=True))], read_file)


def read_file(file: Path) -> Keys:
    return keys_of(file.read_bytes())


def by_duckdb(folder: Path) -> dict[str, int]:
    """Each night as a table of six 64-bit numbers, which DuckDB joins faster than blobs."""
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    for side in SIDES:
        arrow = pa.concat_tables([words_of(read_file(file)) for file in sorted((folder / side).iterdir())])
        connection.register("arrow", arrow)
        connection.execute(f"create table {side} as from arrow")
        connection.unregister("arrow")
        del arrow
    query = "select count(*) from (from {} except all from {})"
    gone, came = (connection.sql(query.format(*names)).fetchall()[0][0] for names in (SIDES, SIDES[::-1]))
    return {"gone": gone, "came": came}


def words_of(keys: Keys) -> pa.Table:
    columns = {"id": keys.ids, "content": keys.contents, "kept": keys.kept}
    return pa.table({f"{name}_{half}": column[:, half] for name, column in columns.items() for half in (0, 1)})


ENGINES: dict[str, Callable[[Path], dict[str, int]]] = {"partitions": by_partitions, "duckdb": by_duckdb}


def main(engine: str, folder: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started = time.perf_counter()
    found: dict[str, Any] = ENGINES[engine](Path(folder))
    seconds = time.perf_counter() - started
    figures = {"seconds": round(seconds, 2), "cpu_s": round(time.process_time(), 2), "peak_mb": round(peak_bytes() / 1e6)}
    print(json.dumps(found | figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
