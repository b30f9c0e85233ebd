"""The other systems of the row `nightly`, each in a process of its own: `python -m scripts.benchmarks.nightly_peers SYSTEM FOLDER`.

The folder holds what they are told (see `Told`). The time of loading the first night is not part of a night.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from bulkembed.dataset import parquet_file
from scripts.benchmarks.material import Row
from scripts.benchmarks.measuring import seconds_of

MONTH_NIGHTS = 30


class Told:
    """What a system is told of a night: the files before it, the rows that are new or changed, and the ids that are deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = json.loads((folder / "files.json").read_text())
        self.upserts = pq.ParquetFile(folder / "upserts.parquet").read()
        self.deletes = pq.ParquetFile(folder / "deletes.parquet").read()

    def tables(self) -> Iterator[pa.Table]:
        """The rows before the night, file by file."""
        return (pq.ParquetFile(file).read().replace_schema_metadata(None) for file in self.files)

    @property
    def rows_after(self) -> int:
        before: int = sum(pq.ParquetFile(file).metadata.num_rows for file in self.files)
        ids = pc.unique(pads.dataset(self.files).to_table(["id"])["id"])
        added = pc.sum(pc.invert(pc.is_in(self.upserts["id"], ids))).as_py()
        return before - len(self.deletes) + int(added)


def plain(told: Told) -> Row:
    """Reads every file, leaves out what is deleted or changed, and writes it again. New vectors go into one more file."""
    out = told.folder / "plain"
    out.mkdir()
    left = pa.concat_arrays([column.combine_chunks() for column in (told.upserts["id"], told.deletes["id"])])

    def loop() -> None:
        for number, table in enumerate(told.tables()):
            live = table.filter(pc.invert(pc.is_in(table["id"], left)))
            (out / f"{number}.parquet").write_bytes(parquet_file.parquet_bytes(live, {}))
        (out / "new.parquet").write_bytes(parquet_file.parquet_bytes(told.upserts, {}))

    seconds = seconds_of(loop)
    return {"apply_s": seconds, "rows_after": pads.dataset(out).count_rows(), "scan_after_s": seconds_of(lambda: scan(out))}


def delta(told: Told) -> Row:
    """MERGE of what is new or changed, and DELETE. Delta has no float16: it gets the same bits as int16."""
    from deltalake import DeltaTable, write_deltalake

    place = str(told.folder / "delta")
    batches = (as_int16(table) for table in told.tables())
    for number, table in enumerate(batches):
        write_deltalake(place, table, mode="append" if number else "overwrite")
    upserts, ids = as_int16(told.upserts), told.deletes["id"].to_pylist()

    def merge() -> None:
        merger = DeltaTable(place).merge(upserts, "t.id = s.id", source_alias="s", target_alias="t")
        merger.when_matched_update_all().when_not_matched_insert_all().execute()

    def delete() -> None:
        DeltaTable(place).delete(f"id in ({quoted(ids)})")

    def scan_table() -> int:
        return scan(DeltaTable(place).file_uris())

    row = timed(merge, delete, scan_table)
    return row | {"rows_after": scan_table()}


def lance(told: Told) -> Row:
    """LanceDB's `merge_insert` and `delete`. They write new rows and marks; readers merge, or `optimize` does."""
    import lancedb

    schema = told.upserts.schema.remove_metadata()
    batches = (batch for table in told.tables() for batch in table.cast(schema).to_batches())
    table = lancedb.connect(told.folder / "lance").create_table("corpus", pa.RecordBatchReader.from_batches(schema, batches))
    ids = told.deletes["id"].to_pylist()

    def merge() -> None:
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(told.upserts)

    def delete() -> None:
        table.delete(f"id in ({quoted(ids)})")

    def scan_table() -> int:
        return sum(batch.num_rows for batch in table.search().to_batches())

    row = timed(merge, delete, scan_table) | {"rows_after": table.count_rows()}
    for upserts in later_nights(told):
        table.merge_insert("id").when_matched_update_all().execute(upserts)
    month = {"fragments_after_month": table.stats()["fragment_stats"]["num_fragments"], "scan_after_month_s": seconds_of(scan_table)}
    return row | month | {"optimize_s": seconds_of(table.optimize), "scan_optimized_s": seconds_of(scan_table)}


def later_nights(told: Told) -> Iterator[pa.Table]:
    """As many changed rows a night for the rest of a month, of other documents every night."""
    random = np.random.default_rng(0)
    ids = pads.dataset(told.files).to_table(["id"])["id"].combine_chunks()
    for _ in range(MONTH_NIGHTS - 1):
        chosen = ids.take(random.choice(len(ids), len(told.upserts), replace=False))
        yield told.upserts.set_column(0, "id", chosen)


def timed(merge: Callable[[], None], delete: Callable[[], None], scan_table: Callable[[], int]) -> Row:
    """Seconds of a night, and of reading all columns of all rows before and after it; the second scan counts, as the first warms up."""
    scan_table()
    before = seconds_of(scan_table)
    merging, deleting = seconds_of(merge), seconds_of(delete)
    scan_table()
    return {
        "apply_s": merging + deleting,
        "merge_s": merging,
        "delete_s": deleting,
        "scan_before_s": before,
        "scan_after_s": seconds_of(scan_table),
    }


def scan(files: object) -> int:
    """Reads all columns of all rows. Returns how many rows there are."""
    return sum(batch.num_rows for batch in pads.dataset(files, format="parquet").to_batches())


def quoted(ids: list[str]) -> str:
    return ", ".join(f"'{each}'" for each in ids)


def as_int16(table: pa.Table) -> pa.Table:
    """The same table with the bits of its float16 vectors as lists of int16."""
    vectors = table["embedding"].combine_chunks()
    offsets = pa.array(range(0, (len(vectors) + 1) * vectors.type.list_size, vectors.type.list_size), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, vectors.flatten().view(pa.int16()))
    return table.set_column(table.column_names.index("embedding"), "embedding", lists)


SYSTEMS: dict[str, Callable[[Told], Row]] = {"plain": plain, "delta": delta, "lance": lance}


def main(system: str, folder: str) -> None:
    told = Told(Path(folder))
    expected = told.rows_after
    result: dict[str, Any] = SYSTEMS[system](told)
    if result["rows_after"] != expected:
        raise SystemExit(f"bench: {system} has {result['rows']:,} rows after the night, not {expected:,}")
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
