"""What a fresh plan reads of a source, counted at the store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed.source import json_columns, planning
from bulkembed.source.columns import carried_columns
from bulkembed.source.json_columns import SAMPLE_LINES
from bulkembed.source.layout import scan_lines
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.faulty_s3 import FaultyS3
from tests.support.models import recipe
from tests.support.reading import config

SPARSE = [{"id": number, "text": "some text", **({"lang": "en"} if number == 2900 else {})} for number in range(3000)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_the_object_that_sets_the_types_is_read_once(tmp_path: Path, s3: dict[str, Any], name: str) -> None:
    uri = f"s3://corpus/{tmp_path.name}/{name}"
    path = tmp_path / name
    write_jsonl(path, SPARSE) if name.endswith("jsonl") else pq.write_table(
        pa.table({name: [row.get(name) for row in SPARSE] for name in ("id", "text", "lang")}), path
    )
    Store(s3).put(uri, path.read_bytes())
    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=[]) as proxy:
        store, cfg = Store(s3 | {"endpoint_url": proxy.url}), config(source=uri, keep_columns=["lang"])
        objects = source_objects(store, uri)
        proxy.methods.clear()
        carried = carried_columns(store, objects, recipe(cfg), cfg.source)
        opened = proxy.methods["GET"]
        plan = planning.plan(store, objects, [], 1000, None, lambda item, layout: None, cfg.text_columns, layouts=carried.layouts)
        assert proxy.methods["GET"] == opened > 0, "planning reads nothing again"
    assert plan.rows_pending == 3000
    assert carried.schema.names == ["id", "lang"]


def test_a_known_layout_is_checked_as_any_other(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", SPARSE)
    cfg = config(source=str(tmp_path))
    objects = source_objects(Store(), str(tmp_path))
    seen: list[str] = []
    layouts = carried_columns(Store(), objects, recipe(cfg), cfg.source).layouts
    planning.plan(Store(), objects, [], 1000, None, lambda item, layout: seen.append(item.id), layouts=layouts)
    assert seen == [objects[0].id]


@pytest.mark.parametrize("rows", [0, 1, SAMPLE_LINES, SAMPLE_LINES + 1])
def test_a_large_object_is_read_no_further_than_its_sample(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "READ_AHEAD_BYTES", 0)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n\n' * rows)
    (item,) = source_objects(Store(), str(path))
    found = json_columns.columns_of(Store(), item, ["id"])
    assert found.has_rows == (rows > 0)
    assert found.layout == (scan_lines(io.BytesIO(path.read_bytes())) if rows <= SAMPLE_LINES else None)
