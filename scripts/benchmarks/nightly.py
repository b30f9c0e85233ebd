"""The row `nightly`: a night of a large dataset, beside other systems that are told what the job finds.

The corpus is written anew as its upstream job would: all files are cut elsewhere and shuffled, and a few documents are other ones. The job
gets nothing but the files. The engine is simulated and free, so that everything else is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from scripts.benchmarks.material import WORK, Row, model_folder
from scripts.benchmarks.measuring import CommandRun, run_command
from scripts.benchmarks.night_requests import one_changed_object
from scripts.benchmarks.usage import Usage
from scripts.samples import nights
from scripts.samples.nights import KEPT_COLUMNS, Corpus, Shares

ROWS_PER_OBJECT = 32_000
SETTINGS = {"engine.kind": "simulated", "engine.tokens_per_second": 1e12}
PEERS = ("plain", "delta", "lance")


def nightly(
    rows: Annotated[list[int] | None, typer.Option(help="Documents of the corpus; repeatable. [default: 1,000,000]")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="plain, delta, lance or none; repeatable. [default: all but none]")] = None,
    rounds: Annotated[int, typer.Option(help="Nights of each.")] = 3,
    characters: Annotated[int, typer.Option(help="Length of the texts at least; a corpus of shorter ones takes less time to make.")] = 200,
    one_object: Annotated[int, typer.Option(help="Objects of a corpus in which one changes; then only this is measured.")] = 0,
) -> Iterator[Row]:
    """A night of a large corpus, beside others told its changes.

    1 % of the rows are changed, 0.5 % new and 0.2 % deleted, and all files are re-cut and shuffled.
    Beside it: a plain loop that rewrites the same files, Delta's MERGE and LanceDB's merge_insert. They are told the changes.
    Goal: 10^6 rows in 40 s and 2 GB on two cores."""
    if one_object:
        yield one_changed_object(one_object)
        return
    for count in rows or [1_000_000]:
        night = Night(count, characters)
        night.first()
        runs = [night.second() for _ in range(rounds)]
        yield {"system": "bulkembed", "rows": count, "told": "nothing", **medians(runs)}
        night.tell()
        for system in peer or PEERS:
            if system != "none":
                yield {"system": system, "rows": count, "told": "all", **medians([night.peer(system) for _ in range(rounds)])}


class Night:
    """Two nights of a corpus: the first fills an output, and the second is measured as often as wanted."""

    def __init__(self, rows: int, characters: int) -> None:
        self.folder = WORK / f"nightly-{rows}-{characters}"
        random = np.random.default_rng(0)
        self.before = nights.first_night(rows, characters)
        self.after = nights.next_night(self.before, Shares(), random)
        for name, corpus in (("first", self.before), ("second", self.after)):
            if not (self.folder / name).exists():
                partial = self.folder / f"{name}.partial"
                nights.write(corpus, partial, max(2, rows // ROWS_PER_OBJECT), random)
                partial.rename(self.folder / name)

    def first(self) -> None:
        """The output of the first night."""
        shutil.rmtree(self.folder / "before", ignore_errors=True)
        self.place("first", "in")
        self.run(self.folder / "before", Usage())

    def second(self) -> Row:
        """Figures of the second night, after the first one."""
        out = self.folder / "out"
        self.place("before", "out")
        self.place("second", "in")
        usage = Usage()
        started = time.time()
        command = self.run(out, usage)
        self.require_documents(out)
        return {"wall_s": round(command.wall, 1), **usage.row(), **phases(out, started, started + command.wall)}

    def place(self, name: str, target: str) -> None:
        """Makes a folder hold what another one holds, with the same times. A file that is replaced in one stays in the other."""
        shutil.rmtree(self.folder / target, ignore_errors=True)
        shutil.copytree(self.folder / name, self.folder / target, copy_function=os.link)

    def run(self, out: Path, usage: Usage) -> CommandRun:
        command = [
            sys.executable,
            "-m",
            "bulkembed",
            "run",
            "--source",
            self.folder / "in",
            "--output",
            out,
            "--model",
            model_folder("minilm"),
        ]
        command += ["--dims", "384", "--dtype", "float16", "--max-tokens", "128"]
        command += [word for name in KEPT_COLUMNS for word in ("--keep-column", name)]
        command += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={json.dumps(value)}")]
        return run_command(list(map(str, command)), os.environ, usage.sample, every=0.2)

    def require_documents(self, out: Path) -> None:
        """Raises SystemExit where the dataset does not hold the ids of the second night."""
        found = pa.chunked_array([column for file in live_files(out) for column in pq.ParquetFile(file).read(["id"])["id"].chunks])
        if not found.sort().equals(pa.chunked_array([nights.id_texts(np.sort(self.after.ids))])):
            raise SystemExit(f"bench: the dataset has {len(found):,} documents, and not those of the source")

    def tell(self) -> None:
        """Writes what the other systems are told. See `nightly_peers.Told`."""
        told = self.folder / "told"
        shutil.rmtree(told, ignore_errors=True)
        told.mkdir()
        (told / "files.json").write_text(json.dumps(live_files(self.folder / "before")))
        upserts = pa.array(nights.id_texts(changed_or_new(self.before, self.after)))
        tables = (pq.ParquetFile(file).read().replace_schema_metadata(None) for file in live_files(self.folder / "out"))
        found = pa.concat_tables([table.filter(pc.is_in(table["id"], upserts)) for table in tables])
        pq.write_table(found, told / "upserts.parquet")
        deletes = nights.id_texts(np.setdiff1d(self.before.ids, self.after.ids))
        pq.write_table(pa.table({"id": deletes}), told / "deletes.parquet")

    def peer(self, system: str) -> Row:
        shutil.rmtree(self.folder / "told" / system, ignore_errors=True)
        usage = Usage()
        command = [sys.executable, "-m", "scripts.benchmarks.nightly_peers", system, str(self.folder / "told")]
        result: Row = json.loads(run_command(command, os.environ, usage.sample, every=0.2).output.splitlines()[-1])
        return result | usage.row()


def live_files(out: Path) -> list[str]:
    return (out / "current.txt").read_text().splitlines()


def changed_or_new(before: Corpus, after: Corpus) -> nights.Numbers:
    """Ids of `after` that `before` does not have with the same content. Ids of both are unique."""
    stayed, old, new = np.intersect1d(before.ids, after.ids, assume_unique=True, return_indices=True)
    same = stayed[before.contents[old] == after.contents[new]]
    return np.setdiff1d(after.ids, same, assume_unique=True)


def phases(out: Path, started: float, ended: float) -> Row:
    """Seconds between the last objects that each step of a night has written."""

    def last(pattern: str, default: float) -> float:
        times = [path.stat().st_mtime for path in out.glob(pattern)]
        return max([default, *(moment for moment in times if moment > started)])

    keys = last("_meta/keys/*/*", started)
    number = 8 * "[0-9]"
    embedded = last(f"_meta/receipts/*/*-e{number}-*.json", keys)
    rewritten = last(f"_meta/receipts/*/*-w{number}-*.json", embedded)
    published = last("current.txt", rewritten)
    moments = {"scan_s": keys, "difference_to_embedding_s": embedded, "rewrite_s": rewritten, "publish_s": published, "end_s": ended}
    steps = zip(moments, [started, *moments.values()], moments.values(), strict=False)
    return {name: round(stop - start, 1) for name, start, stop in steps}


def medians(runs: list[Row]) -> Row:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
