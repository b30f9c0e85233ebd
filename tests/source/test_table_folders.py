"""Folders of table formats, which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkembed.errors import SourceError
from bulkembed.source.objects import source_listing
from bulkembed.storage.store import Store
from tests.support.listing import fill, paths

READ = {"Delta", "Iceberg"}  # where the source is their folder: see test_tables
TABLES = {
    "Delta": ("_delta_log/00000000000000000000.json", "part-0.parquet"),
    "Hudi": (".hoodie/hoodie.properties", "a/part-0.parquet"),
    "Lance": ("_versions/1.manifest", "data/0.lance"),
    "Iceberg": ("metadata/a.avro", "metadata/v1.metadata.json", "data/dt=1/part-0.parquet"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_folder_of_a_table_format_is_refused_by_name(place: tuple[Store, str], kind: str) -> None:
    store, root = place
    names = TABLES[kind]
    fill(root, *(f"lake/t/{name}" for name in names), "lake/a.jsonl", store=store)
    folder = names[-1].rpartition("/")[0]
    sources = ["lake", *([] if kind in READ else ["lake/t"]), "lake/t/**", f"lake/t/{folder}/*", f"lake/*/{folder}/*", "lake/**/*.parquet"]
    for source in sources + ([f"lake/t/{folder}"] if folder else []):
        with pytest.raises(SourceError, match=f"lake/t is a table in {kind} format") as caught:
            source_listing(store, f"{root}/{source}".replace("//", "/").replace(":/c", "://c"))
        assert caught.value.exit_code == 2


def test_one_live_file_of_a_table_may_be_named(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "t/_delta_log/0.json", "t/part-0.parquet", store=store)
    assert paths(source_listing(store, f"{root}/t/part-0.parquet")) == ["part-0.parquet"]


def test_a_link_into_a_table_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "t/_delta_log/0.json", "t/dt=1/part-0.parquet", "in/a.jsonl")
    (tmp_path / "in" / "more").symlink_to("../t/dt=1")
    (tmp_path / "alone").symlink_to("t/dt=1")
    for source in ("in", "alone"):
        with pytest.raises(SourceError, match="t is a table in Delta format"):
            source_listing(Store(), f"{tmp_path}/{source}")


def test_names_that_only_resemble_those_of_tables_are_fine(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a/metadata/b.json", "_versions/notes.txt", "metadata/x.metadata.json", "_delta_log", store=store)
    assert paths(source_listing(store, root)) == ["a/metadata/b.json", "metadata/x.metadata.json"]


@pytest.mark.parametrize("protocol", ["", "file://", "local://", "memory://"])
@pytest.mark.parametrize("kind", sorted(TABLES.keys() - READ))
def test_a_table_is_noticed_in_every_spelling_of_its_place(tmp_path: Path, protocol: str, kind: str) -> None:
    root = f"{protocol}{tmp_path}/t"
    fill(root, *TABLES[kind], "more.jsonl")
    for source in (root, f"{root}/"):
        with pytest.raises(SourceError, match=f"t is a table in {kind} format"):
            source_listing(Store(), source)
