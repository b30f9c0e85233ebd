from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import SourceError
from bulkembed.records import Failure
from bulkembed.scans import Layout
from bulkembed.shards import Shard
from bulkembed.source import planning
from bulkembed.source.objects import SourceObject, source_objects
from bulkembed.source.planning import Bounds, gathered
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus, write_jsonl

STORE = Store()
AMPLE = 1 << 40


def planned(source: Path, max_rows: int = 20, max_text_bytes: int = AMPLE) -> tuple[list[Shard], list[Failure]]:
    objects = source_objects(STORE, str(source))
    return planning.plan(STORE, objects, lambda item, layout: None, ["text"], Bounds(max_rows, max_text_bytes))


def rows_of(shards: list[Shard]) -> list[tuple[str, int]]:
    return [(part.object_id, row) for shard in shards for part in shard.parts for row in part.object_rows]


def test_ids_come_from_the_data(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a")
    first = [shard.id for shard in planned(tmp_path / "a")[0]]
    assert first == [shard.id for shard in planned(tmp_path / "a")[0]]
    assert first == sorted(first)
    write_jsonl(tmp_path / "a" / "part-00.jsonl", [{"id": 1, "text": "new"}])
    assert set(first) < {shard.id for shard in planned(tmp_path / "a")[0]}


def test_a_changed_object_gets_new_ids_and_the_others_keep_theirs(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    before = {shard.id for shard in planned(tmp_path)[0]}
    write_jsonl(tmp_path / "part-1.jsonl", [{"id": 1, "text": "changed"}])
    after = {shard.id for shard in planned(tmp_path)[0]}
    assert before - after == {each for each in before if each.startswith("part-1.")}


@pytest.mark.parametrize("max_rows", [1, 7, 20, 30, 1000])
def test_every_row_is_in_one_shard_whatever_the_size(tmp_path: Path, max_rows: int) -> None:
    write_corpus(tmp_path)
    shards, _ = planned(tmp_path, max_rows)
    assert len(set(rows_of(shards))) == len(rows_of(shards)) == 200
    assert max(shard.rows for shard in shards) <= max_rows


LAYOUTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4000)), min_size=1, max_size=3).map(
    lambda parts: Layout([rows for rows, _ in parts], [size for _, size in parts], [], pa.schema([]))
)


@st.composite
def picked(draw: st.DrawFn) -> list[tuple[SourceObject, Layout, np.ndarray]]:
    objects = []
    for number in range(draw(st.integers(1, 5))):
        layout = draw(LAYOUTS)
        rows = draw(st.sets(st.integers(0, layout.rows - 1), min_size=1))
        item = SourceObject(f"u{number}", f"r{number}", 1, "v", "parquet", f"object-{number}")
        objects.append((item, layout, np.array(sorted(rows), np.int64)))
    return objects


@given(picked(), st.integers(1, 50), st.integers(1, 3000), st.integers(0, 3))
def test_picked_rows_are_gathered_in_order_each_once(
    opened: list[tuple[SourceObject, Layout, np.ndarray]], max_rows: int, max_text_bytes: int, parent: int
) -> None:
    shards = list(gathered(iter(opened), Bounds(max_rows, max_text_bytes), parent))
    assert rows_of(shards) == [(item.id, row) for item, _, rows in opened for row in rows.tolist()]
    assert all(0 < shard.rows <= max_rows and shard.parent == parent for shard in shards)
    assert all(shard.rows == 1 or shard.text_bytes <= max_text_bytes for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)
    ample = list(gathered(iter(opened), Bounds(max_rows, AMPLE), parent))
    assert all(shard.rows == max_rows for shard in ample[:-1]), "a shard is filled before the next one begins"


def test_corrupt_objects_are_named_and_the_others_planned(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    (tmp_path / "part-9.parquet").write_bytes(b"")
    shards, failures = planned(tmp_path)
    assert [Path(failure.where).name for failure in failures] == ["part-0.parquet", "part-9.parquet"]
    assert len(rows_of(shards)) == 150


def test_empty_files_hold_no_shards(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    pq.write_table(pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    shards, failures = planned(tmp_path)
    assert (len(rows_of(shards)), failures) == (200, [])


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_corpus(tmp_path, files=1)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / "_staging").mkdir()
    write_jsonl(tmp_path / "_staging" / "x.jsonl", [{"id": 1, "text": "x"}])
    assert len(source_objects(STORE, str(tmp_path))) == 1


@pytest.mark.parametrize(("uri", "count"), [("{}", 4), ("{}/", 4), ("{}/*.parquet", 2), ("{}/part-1.jsonl", 1), ("file://{}", 4)])
def test_a_source_is_a_prefix_a_glob_or_one_object(tmp_path: Path, uri: str, count: int) -> None:
    write_corpus(tmp_path)
    objects = source_objects(Store(), uri.format(tmp_path))
    assert len(objects) == count
    assert all("/" not in item.relative_path for item in objects)


@pytest.mark.parametrize("name", ["nothing-here", "."])
def test_a_source_without_documents_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"expected|none of them"):
        source_objects(Store(), str(tmp_path / name))


def test_shards_know_their_text_and_are_halved_where_it_is_too_much(tmp_path: Path) -> None:
    rows = [{"id": number, "text": "x" * (10 if number < 40 else 1000), "other": "y" * 5000} for number in range(80)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20, use_dictionary=False)
    write_jsonl(tmp_path / "b.jsonl", [{"id": row["id"], "text": row["text"]} for row in rows])
    shards, _ = planned(tmp_path, 40, 25_000)
    assert len(set(rows_of(shards))) == len(rows_of(shards)) == 160
    parquet = [shard for shard in shards if shard.parts[0].format == "parquet"]
    assert [shard.rows for shard in parquet] == [40, 20, 20]
    assert 400 <= parquet[0].text_bytes < 1500
    assert all(20_000 <= shard.text_bytes <= 25_000 for shard in parquet[1:])
    lines = [shard for shard in shards if shard.parts[0].format == "jsonl"]
    assert sum(shard.text_bytes for shard in lines) == pytest.approx((tmp_path / "b.jsonl").stat().st_size, abs=len(lines))
    assert all(shard.text_bytes <= 25_000 for shard in lines)
