"""Sources that are Delta or Iceberg tables: the live rows, or one line that says why not."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import DataFileContent

from bulkembed.errors import ObjectError, SourceError
from bulkembed.runs.versions import first_rows
from bulkembed.source.live_files import TableColumns, TableFile
from bulkembed.source.objects import NoDocuments, source_listing
from bulkembed.source.places import listing_of
from bulkembed.source.scan import scan_object
from bulkembed.storage.store import Store
from scripts.samples.tables import FolderCatalog, change_log, log_actions, mark_deleted, protocol
from tests.support.listing import left_out, paths
from tests.support.models import recipe
from tests.support.reading import carried_of, config
from tests.support.tables import delete_rows, rows, upload

STORE = Store()
ID_ONLY = pa.schema([pa.field("id", pa.int64(), nullable=False)])
Maker = Callable[[Path], None]  # of a table in a folder


def live_ids(store: Store, source: str) -> list[int]:
    """The ids of the documents that a source gives, sorted: each is read with its row."""
    cfg, found = config(), []
    listing = source_listing(store, source)
    assert not listing.failures
    carried = carried_of(listing.objects, cfg) if not store.settings else ID_ONLY
    for item in listing.objects:
        scan = scan_object(store, item, recipe(cfg), carried)
        with store.open(item.uri) as file:
            ids = pq.ParquetFile(file).read()["id"].to_pylist()
        assert scan.counts.rows == len(scan.keys) + scan.rejects.num_rows
        found += [ids[row] for row in scan.keys.rows]
    return sorted(found)


def delta_table(folder: Path) -> None:
    """Rows 1 to 8 in two files, of which 2 and 7 are deleted by rewriting; row 3 has another text now."""
    write_deltalake(folder, rows(1, 2, 3, 4))
    write_deltalake(folder, rows(5, 6, 7, 8), mode="append")
    DeltaTable(folder).delete("id in (2, 7)")
    DeltaTable(folder).update(updates={"text": "'another text'"}, predicate="id = 3")


def iceberg_table(folder: Path) -> None:
    """The same rows."""
    table = FolderCatalog().create(folder, rows(1).schema)
    table.append(rows(1, 2, 3, 4))
    table.append(rows(5, 6, 7, 8))
    table.delete("id = 2")
    file = next(task.file.file_path for task in table.scan().plan_files() if task.file.record_count == 4)
    delete_rows(table, [(file, 2)])
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == [1, 3, 4, 5, 6, 8]


NAMES: dict[Maker, str] = {
    delta_table: "version 3 of the Delta table",
    iceberg_table: r"snapshot \d+ \(metadata/\S+\) of the Iceberg table",
}


@pytest.mark.parametrize("make", NAMES)
def test_a_table_is_its_live_rows(place: tuple[Store, str], tmp_path: Path, make: Maker) -> None:
    make(tmp_path / "made")
    store, root = place
    source = upload(tmp_path / "made", store, f"{root}/t")
    assert live_ids(store, source) == [1, 3, 4, 5, 6, 8]
    listing = source_listing(store, source)
    assert re.match(f"{re.escape(source)}: {NAMES[make]}", listing.tables[0])
    assert list(left_out(listing)) == ["not live in this version of the table"]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_log_is_read_from_its_newest_checkpoint_on(tmp_path: Path, checkpoint: bool) -> None:
    delta_table(tmp_path / "t")
    if checkpoint:
        DeltaTable(tmp_path / "t").create_checkpoint()
        for number in range(3):
            (tmp_path / "t" / "_delta_log" / f"{number:020d}.json").unlink()
    write_deltalake(tmp_path / "t", rows(9), mode="append")
    assert live_ids(STORE, str(tmp_path / "t")) == [1, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("inline", [False, True])
def test_deletion_vectors_are_applied_and_change_the_object(tmp_path: Path, inline: bool) -> None:
    write_deltalake(tmp_path / "t", rows(1, 2, 3, 4))
    write_deltalake(tmp_path / "t", rows(5), mode="append")
    file = log_actions(tmp_path / "t", "add")[0]["path"]
    before = {item.id for item in source_listing(STORE, str(tmp_path / "t")).objects}
    mark_deleted(tmp_path / "t", file, [0, 2], inline)
    assert live_ids(STORE, str(tmp_path / "t")) == [2, 4, 5]
    mark_deleted(tmp_path / "t", file, [0, 2, 3], inline)
    assert live_ids(STORE, str(tmp_path / "t")) == [2, 5]
    assert len(before & {item.id for item in source_listing(STORE, str(tmp_path / "t")).objects}) == 1


def test_names_of_partitions_are_those_on_disk(tmp_path: Path) -> None:
    table = pa.concat_tables([rows(number, day=day) for number, day in enumerate(["a b/ü", "x%20y", "_z=1"])])
    write_deltalake(tmp_path / "t", table, partition_by=["day"])
    assert live_ids(STORE, str(tmp_path / "t")) == [0, 1, 2]


def asked_for(source: Path, *names: str) -> None:
    """Looks for the types of kept columns, as the first run does, and reads every object."""
    cfg = config(keep_columns=names)
    objects = source_listing(STORE, str(source)).objects
    carried = carried_of(objects, cfg)
    for item in objects:
        scan_object(STORE, item, recipe(cfg), carried)


def test_partition_columns_and_renamed_columns_of_delta_are_refused_where_they_are_asked_for(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", rows(1, time=datetime(2026, 11, 26, tzinfo=UTC), lang="en"), partition_by=["time"])
    asked_for(tmp_path / "t", "lang")
    with pytest.raises(SourceError, match="column 'time' is a partition column, whose values are in the table's log"):
        asked_for(tmp_path / "t", "time")
    (meta,) = log_actions(tmp_path / "t", "metaData")
    schema = json.loads(meta["schemaString"])
    for number, field in enumerate(schema["fields"]):
        stored = "col-1" if field["name"] == "lang" else field["name"]
        field["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": stored}
    mapped = meta | {"schemaString": json.dumps(schema), "configuration": {"delta.columnMapping.mode": "name"}}
    change_log(tmp_path / "t", protocol("columnMapping"), {"metaData": mapped})
    asked_for(tmp_path / "t")
    with pytest.raises(SourceError, match=r"column 'lang' is stored under another name \(col-1\)"):
        asked_for(tmp_path / "t", "lang")


def test_renamed_columns_of_iceberg_are_refused_in_files_that_have_the_old_name(tmp_path: Path) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1, lang="en", where="here").schema)
    table.append(rows(1, lang="en", where="here"))
    with table.update_schema() as update:
        update.rename_column("lang", "language")
        update.delete_column("where")
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.add_column("where", update._schema.find_type("text"))
    asked_for(tmp_path / "t")
    with pytest.raises(SourceError, match="column 'language' is called 'lang' in this file; rewrite"):
        asked_for(tmp_path / "t", "language")
    with pytest.raises(SourceError, match="column 'where' is another column in this file"):
        asked_for(tmp_path / "t", "where")


def test_partition_columns_of_iceberg_are_read_from_the_files(tmp_path: Path) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1, lang="en").schema)
    with table.update_spec() as update:
        update.add_identity("lang")
    table.append(rows(1, 2, lang="en"))
    asked_for(tmp_path / "t", "lang")


def damage_log(folder: Path) -> None:
    write_deltalake(folder, rows(1))
    (folder / "_delta_log" / f"{1:020d}.json").write_text("damaged\n")


def rows_that_are_not_there(folder: Path) -> None:
    write_deltalake(folder, rows(1, 2))
    mark_deleted(folder, log_actions(folder, "add")[0]["path"], [0, 2])


def unknown_feature(folder: Path) -> None:
    write_deltalake(folder, rows(1))
    change_log(folder, protocol("holograms"))


def shallow_clone(folder: Path) -> None:
    write_deltalake(folder, rows(1))
    (add,) = log_actions(folder, "add")
    change_log(folder, {"add": add | {"path": "s3://another/place/a.parquet"}})


def equality_deletes(folder: Path) -> None:
    table = FolderCatalog().create(folder, rows(1).schema)
    table.append(rows(1, 2))
    delete_rows(table, [("x", 1)], DataFileContent.EQUALITY_DELETES)


def orc_deletes(folder: Path) -> None:
    table = FolderCatalog().create(folder, rows(1).schema)
    table.append(rows(1, 2))
    delete_rows(table, [("x", 1)], format="ORC")


def two_newest(folder: Path) -> None:
    FolderCatalog().create(folder, rows(1).schema).append(rows(1))
    newest = max((folder / "metadata").glob("*.metadata.json"))
    newest.with_name("00001-other.metadata.json").write_bytes(newest.read_bytes())


UNREADABLE: dict[Maker, str] = {
    damage_log: "deltalake cannot read this Delta table: .*Json error",
    rows_that_are_not_there: "exceeds numRecords 2 for file: /.*/t/part-",
    unknown_feature: "Feature 'holograms' is not supported",
    shallow_clone: "s3://another/place/a.parquet lies in another folder, as those of a shallow clone do; make a deep clone",
    equality_deletes: "pyiceberg cannot read this Iceberg table: it has equality deletes, .*; compact the table",
    orc_deletes: "its delete file .* is ORC; compact the table",
    two_newest: "have the same number; name the one that the catalog has as the source",
}


@pytest.mark.parametrize("make", UNREADABLE, ids=lambda make: make.__name__)
def test_what_cannot_be_read_rightly_is_one_line(tmp_path: Path, make: Maker) -> None:
    make(tmp_path / "t")
    with pytest.raises(SourceError, match=UNREADABLE[make]) as caught:
        source_listing(STORE, str(tmp_path / "t"))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value) and f"{tmp_path}/t" in str(caught.value)


def test_a_metadata_file_names_a_version_of_an_iceberg_table(tmp_path: Path) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1).schema)
    table.append(rows(1, 2))
    first = table.metadata_location
    table.append(rows(3))
    assert live_ids(STORE, first) == [1, 2]
    assert live_ids(STORE, table.metadata_location) == live_ids(STORE, str(tmp_path / "t")) == [1, 2, 3]


def test_a_live_file_that_is_gone_is_a_failure_and_an_empty_table_has_no_documents(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", rows(1))
    write_deltalake(tmp_path / "t", rows(2), mode="append")
    gone = log_actions(tmp_path / "t", "add")[0]["path"]
    (tmp_path / "t" / gone).unlink()
    listing = source_listing(STORE, str(tmp_path / "t"))
    assert len(paths(listing)) == 1
    assert [(failure.where, failure.reason[:40]) for failure in listing.failures] == [
        (f"{tmp_path}/t/{gone}", "version 1 of the Delta table lists this ")
    ]
    DeltaTable(tmp_path / "t").delete()
    with pytest.raises(NoDocuments, match="version 2 of the Delta table has no files"):
        source_listing(STORE, str(tmp_path / "t"))


@pytest.mark.parametrize(("make", "package"), [(delta_table, "deltalake"), (iceberg_table, "pyiceberg")])
def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, package: str) -> None:
    make(tmp_path / "t")
    for module in (package, f"{package}.table", f"{package}.serializers", f"{package}.catalog.noop"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"pip install 'bulkembed\[tables\]'") as caught:
        source_listing(STORE, str(tmp_path / "t"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("protocol", ["file://", "local://"])
@pytest.mark.parametrize("make", NAMES)
def test_a_table_is_noticed_in_every_spelling_of_its_place(tmp_path: Path, make: Maker, protocol: str) -> None:
    make(tmp_path / "t")
    for source in (f"{protocol}{tmp_path}/t", f"{tmp_path}/t/"):
        assert live_ids(STORE, source) == [1, 3, 4, 5, 6, 8]


def test_a_moved_iceberg_table_is_read_where_it_is(tmp_path: Path) -> None:
    iceberg_table(tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "t")
    assert live_ids(STORE, str(tmp_path / "t")) == [1, 3, 4, 5, 6, 8]


def test_an_unreadable_column_fails_only_its_file(tmp_path: Path) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1).schema)
    table.append(rows(1))
    with table.update_schema() as update:
        update.rename_column("text", "body")
    table.append(rows(2).rename_columns(["id", "body"]))
    cfg = config(text_columns=("body",))
    outcomes: list[object] = []
    for item in source_listing(STORE, str(tmp_path / "t")).objects:
        try:
            outcomes.append(scan_object(STORE, item, recipe(cfg), ID_ONLY).counts.documents)
        except ObjectError as error:
            outcomes.append(str(error).partition(": ")[2])
    assert sorted(map(str, outcomes))[0] == "1" and "column 'body' is called 'text' in this file" in str(outcomes)


def test_an_empty_iceberg_table_and_a_link_to_a_table_are_tables(tmp_path: Path) -> None:
    FolderCatalog().create(tmp_path / "empty", rows(1).schema)
    with pytest.raises(NoDocuments, match=r"no snapshot \(metadata/00000-\S+\) of the Iceberg table has no files"):
        source_listing(STORE, str(tmp_path / "empty"))
    delta_table(tmp_path / "t")
    (tmp_path / "link").symlink_to("t")
    assert live_ids(STORE, str(tmp_path / "link")) == [1, 3, 4, 5, 6, 8]


def test_files_that_name_deleted_rows_are_not_called_left_out(tmp_path: Path) -> None:
    iceberg_table(tmp_path / "ice")
    write_deltalake(tmp_path / "t", rows(1, 2))
    mark_deleted(tmp_path / "t", log_actions(tmp_path / "t", "add")[0]["path"], [0])
    named = [
        name for folder in ("ice", "t") for _, names in left_out(source_listing(STORE, str(tmp_path / folder))).values() for name in names
    ]
    assert [name for name in named if "delet" in name] == []
    assert len(named) == 1  # what the delete in Iceberg has rewritten


def test_deletion_vectors_stay_within_the_local_copy(s3: dict[str, Any], bucket: tuple[Store, str], tmp_path: Path) -> None:
    store, root = bucket
    write_deltalake(tmp_path / "t", rows(1, 2))
    mark_deleted(tmp_path / "t", log_actions(tmp_path / "t", "add")[0]["path"], [0])
    source = upload(tmp_path / "t", store, f"{root}/t")
    name = f"deletion_vector_{uuid.uuid4()}.bin"
    boto3.client("s3", endpoint_url=s3["endpoint_url"], aws_access_key_id=s3["key"], aws_secret_access_key=s3["secret"]).put_object(
        Bucket="corpus", Key=f"{root.removeprefix('s3://corpus/')}/t/../{name}", Body=b"x"
    )
    assert live_ids(store, source) == [2]
    assert not Path(tempfile.gettempdir(), name).exists()


def test_a_table_beside_a_folder_and_without_a_partition(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "text": ["a", "b"], "day": ["1", "2"]}), partition_by=["day"])
    pq.write_table(pa.table({"id": [3], "text": ["c"]}), tmp_path / "c.parquet")
    whole = listing_of(STORE, [str(tmp_path / "t"), str(tmp_path / "c.parquet")])
    assert (len(whole.objects), len(whole.tables)) == (3, 1)
    part = listing_of(STORE, [str(tmp_path / "t"), str(tmp_path / "c.parquet")], ["day=1"])
    assert {item.id for item in part.objects} == {item.id for item in whole.objects if "day=1" not in item.uri}
    assert left_out(part) == {f"excluded by day=1, below {tmp_path}/t": (1, ("day=1/",))}


@pytest.mark.parametrize("kind", ["PARQUET", "PUFFIN"])
def test_deletes_of_several_files_are_applied_to_each(tmp_path: Path, kind: str) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1).schema)
    table.append(rows(1, 2, 3))
    table.append(rows(4, 5))
    files = {task.file.record_count: task.file.file_path for task in table.scan().plan_files()}
    delete_rows(table, [(files[3], 0), (files[2], 1), (files[3], 2)], format=kind)
    delete_rows(table, [(files[3], 2)], format=kind)
    assert live_ids(STORE, str(tmp_path / "t")) == [2, 4]
    table.append(rows(6, 7))
    assert live_ids(STORE, str(tmp_path / "t")) == [2, 4, 6, 7] == sorted(table.scan().to_arrow()["id"].to_pylist())


@given(texts=st.lists(st.sampled_from(["a", "b", "", None]), min_size=1, max_size=30), data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_scan_holds_each_live_row_once_and_a_limit_takes_the_first_of_them(tmp_path: Path, texts: list[str | None], data: Any) -> None:
    pq.write_table(pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())}), tmp_path / "a.parquet", row_group_size=7)
    dead = np.array(sorted(data.draw(st.sets(st.integers(0, len(texts) - 1)))), np.int64)
    (item,) = source_listing(STORE, str(tmp_path)).objects
    scan = scan_object(STORE, replace(item, table=TableFile(dead, TableColumns())), recipe(config()), ID_ONLY)
    live = [row for row in range(len(texts)) if row not in dead]
    limit = data.draw(st.integers(0, len(live)))
    for found, rows_there in ((scan, live), (first_rows(scan, limit), live[:limit])):
        assert found.keys.rows.tolist() == [row for row in rows_there if texts[row]]
        assert found.rejects["row"].to_pylist() == [row for row in rows_there if not texts[row]]
        assert found.counts.rows == len(rows_there)


def test_only_a_rename_of_what_is_asked_for_is_refused_within_a_struct(tmp_path: Path) -> None:
    meta = pa.array([{"a": "x", "b": "y"}])
    table = FolderCatalog().create(tmp_path / "t", rows(1).append_column("meta", meta).schema)
    table.append(rows(1).append_column("meta", meta))
    with table.update_schema() as update:
        update.rename_column(("meta", "b"), "c")
    asked_for(tmp_path / "t", "meta.a")
    for name in ("meta", "meta.c"):
        with pytest.raises(SourceError, match=r"column 'meta\.c' is called 'meta\.b' in this file"):
            asked_for(tmp_path / "t", name)


def test_deleted_rows_that_a_file_does_not_have_are_an_error_of_that_file(tmp_path: Path) -> None:
    table = FolderCatalog().create(tmp_path / "t", rows(1).schema)
    table.append(rows(1, 2))
    delete_rows(table, [(next(iter(table.scan().plan_files())).file.file_path, row) for row in (0, 2)])
    (item,) = source_listing(STORE, str(tmp_path / "t")).objects
    with pytest.raises(ObjectError, match="names deleted rows that the file does not have"):
        scan_object(STORE, item, recipe(config()), ID_ONLY)
