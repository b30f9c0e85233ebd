"""Plain readers over exactly the files of an old and of a new snapshot, before and after gc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest

from bulkembed.dataset.gc import GcRules, gc
from bulkembed.dataset.snapshots import data_files, snapshot_of
from bulkembed.errors import SourceError
from bulkembed.storage.store import Store
from tests.support.nights import Upstream, sorted_rows
from tests.support.runs import in_one_process, read_dataset, simulated

COLUMNS = ["id", "lang", "embedding", "content_hash"]
Reader = Callable[[list[str]], pa.Table]


def by_duckdb(files: list[str]) -> pa.Table:
    with duckdb.connect() as connection:
        query = "select id, lang, embedding, content_hash from read_parquet($files)"
        return connection.sql(query, params={"files": files}).to_arrow_table()


def by_polars(files: list[str]) -> pa.Table:
    return polars.scan_parquet(files, glob=False).select(COLUMNS).collect().to_arrow()


def by_pyarrow(files: list[str]) -> pa.Table:
    return pyarrow.dataset.dataset(files).to_table(COLUMNS)


READERS: list[Reader] = [by_duckdb, by_polars, by_pyarrow]


def test_every_snapshot_reads_as_it_was_published_until_gc_frees_it(tmp_path: Path, qwen: str) -> None:
    store, output, upstream = Store(), str(tmp_path / "out"), Upstream(seed=5, documents=60)
    published = []
    for _ in range(3):
        upstream.write(tmp_path / "in")
        in_one_process(simulated(tmp_path / "in", output, qwen)).require_complete()
        published.append(read_dataset(output).select(COLUMNS))
        upstream.next_night(60)
    files = {number: data_files(store, output, snapshot_of(store, output, number)) for number in (1, 2, 3)}

    def require_as_published(number: int) -> None:
        expected = published[number - 1]
        for read in READERS:
            assert sorted_rows(read(files[number]).cast(expected.schema)).equals(sorted_rows(expected))

    for number in files:
        require_as_published(number)
    gc(store, output, GcRules(keep=2, grace=0, older_than=0, max_share=1.0))
    require_as_published(2)
    require_as_published(3)
    with pytest.raises(SourceError):
        snapshot_of(store, output, 1)
    stored = {str(path) for path in Path(output).glob("data/*/*.parquet")}
    assert stored == {*files[2], *files[3]}
