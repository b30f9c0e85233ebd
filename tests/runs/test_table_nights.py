"""Nights over tables: rows that a table deleted leave the dataset, and files that it cut anew embed nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from bulkembed.inspection.status import status_of
from bulkembed.report.dataset_text import status_text
from bulkembed.report.run_text import plan_text, summary_text
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.samples.tables import FolderCatalog, mark_deleted
from tests.support.nights import CountingEmbedder
from tests.support.runs import in_one_process, problems, read_dataset, simulated
from tests.support.tables import delete_rows, rows

Live = Callable[[], list[int]]  # the ids that the table's own reader gives
Nights = list[tuple[Callable[[], Any], int]]  # what is done to the table before each night, and how many texts are new


def delta_nights(place: Path) -> tuple[Nights, Live]:
    def live() -> list[int]:
        ids: list[int] = pa.table(DeltaTable(place).scan().read_all())["id"].to_pylist()
        return ids

    return [
        (lambda: write_deltalake(place, rows(*range(10), lang="en")), 10),
        (lambda: write_deltalake(place, rows(10, 11, lang="en"), mode="append"), 2),
        (lambda: DeltaTable(place).delete("id = 4"), 0),
        (lambda: DeltaTable(place).update(updates={"text": "'the text of 5'"}, predicate="id = 5"), 1),
        (lambda: compact(place), 0),
        (lambda: DeltaTable(place).vacuum(0, dry_run=False, enforce_retention_duration=False), 0),
        (lambda: write_deltalake(place, rows(20, lang="en"), mode="append"), 1),
        (lambda: mark_deleted(place, live_files(place)[0], [0]), 0),
        (lambda: mark_deleted(place, live_files(place)[-1], [0]), 0),
        (lambda: DeltaTable(place).create_checkpoint(), 0),
    ], live


def compact(place: Path) -> None:
    DeltaTable(place).optimize.compact()


def live_files(place: Path) -> list[str]:
    return [Path(uri).name for uri in DeltaTable(place).file_uris()]


def iceberg_nights(place: Path) -> tuple[Nights, Live]:
    table = FolderCatalog().create(place, rows(1, lang="en").schema)

    def mark() -> None:
        file = next(task.file.file_path for task in table.scan().plan_files() if task.file.record_count == 10)
        delete_rows(table, [(file, 0), (file, 9)])

    def live() -> list[int]:
        ids: list[int] = table.scan().to_arrow()["id"].to_pylist()
        return ids

    return [
        (lambda: table.append(rows(*range(10), lang="en")), 10),
        (lambda: table.append(rows(10, 11, lang="en")), 2),
        (mark, 0),
        (lambda: table.delete("id = 11"), 0),
        (lambda: table.overwrite(table.scan().to_arrow()), 0),
        (lambda: table.maintenance.expire_snapshots().older_than(datetime.max).commit(), 0),
        (lambda: table.upsert(rows(3, lang="de"), ["id"]), 0),
        (lambda: table.upsert(rows(3, 30, text="new text", lang="de"), ["id"]), 2),
    ], live


@pytest.mark.parametrize("table", [delta_nights, iceberg_nights])
def test_every_night_holds_the_live_rows_and_embeds_only_new_texts(tmp_path: Path, qwen: str, table: Any) -> None:
    nights, live = table(tmp_path / "t")
    for change, new in nights:
        change()
        embedder = CountingEmbedder()
        cfg = simulated(tmp_path / "t", tmp_path / "out", qwen, allow_deletes=10)
        run(cfg, lambda progress: None, LocalExecutor(embedder)).require_complete()
        assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == sorted(live())
        assert len(embedder.seen) == new
    assert problems(tmp_path / "out") == []


def test_a_limit_counts_live_rows(tmp_path: Path, qwen: str) -> None:
    write_deltalake(tmp_path / "t", rows(*range(10), lang="en"))
    mark_deleted(tmp_path / "t", live_files(tmp_path / "t")[0], [0, 1, 5])
    in_one_process(simulated(tmp_path / "t", tmp_path / "out", qwen, limit=4)).require_complete()
    assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == [2, 3, 4, 6]


def test_partition_columns_that_names_of_folders_tell_are_kept_as_text(tmp_path: Path, qwen: str) -> None:
    kinds = pa.schema([("id", pa.int64()), ("text", pa.string()), ("day", pa.date32()), ("tag", pa.string())])
    pairs = [(date(2026, 11, 26), "a b/ü"), (date(2026, 11, 27), "x%20"), (None, None)]
    table = pa.concat_tables([rows(number, day=day, tag=tag).cast(kinds) for number, (day, tag) in enumerate(pairs)])
    write_deltalake(tmp_path / "t", table, partition_by=["day", "tag"])
    in_one_process(simulated(tmp_path / "t", tmp_path / "out", qwen, keep_columns=["day", "tag"])).require_complete()
    found = read_dataset(tmp_path / "out").select(["id", "day", "tag"]).to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == [
        {"id": 0, "day": "2026-11-26", "tag": "a b/ü"},
        {"id": 1, "day": "2026-11-27", "tag": "x%20"},
        {"id": 2, "day": None, "tag": None},
    ]


def test_a_column_that_a_table_has_later_is_null_before(tmp_path: Path, qwen: str) -> None:
    write_deltalake(tmp_path / "t", rows(1))
    write_deltalake(tmp_path / "t", rows(2, lang="en"), mode="append", schema_mode="merge")
    in_one_process(simulated(tmp_path / "t", tmp_path / "out", qwen)).require_complete()
    found = read_dataset(tmp_path / "out").select(["id", "lang"]).to_pylist()
    assert sorted(found, key=lambda row: row["id"]) == [{"id": 1, "lang": None}, {"id": 2, "lang": "en"}]


def test_plan_summary_and_snapshot_name_the_table_and_its_version(tmp_path: Path, qwen: str) -> None:
    write_deltalake(tmp_path / "t", rows(1, lang="en"))
    cfg = simulated(tmp_path / "t", tmp_path / "out", qwen)
    line = f"{tmp_path}/t: version 0 of the Delta table"
    job, plan = open_job(cfg)
    assert line in plan_text(job, plan)
    summary = in_one_process(cfg)
    assert line in summary_text(job, summary, 1.0)
    assert summary.snapshot and summary.snapshot.tables == [line]
    assert line in status_text("out", list(status_of(Store(), cfg.output)))
