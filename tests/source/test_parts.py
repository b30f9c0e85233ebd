"""Shards of picked rows of many objects: what they read is what the whole objects give at these rows."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import ObjectError
from bulkembed.formats import parquet
from bulkembed.shards import Part, Shard
from bulkembed.source import reader
from bulkembed.source.objects import source_objects
from tests.support.corpora import write_jsonl
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, shards_of

CONFIG = config(keep_columns=["lang", "tags"])
TEXTS: list[Any] = ["one", "two", "", None, "five", " ", "seven", "eight words of text", 9]


@dataclass(frozen=True)
class Corpus:
    carried: pa.Schema
    parts: list[Part]  # each object whole
    outcomes: dict[tuple[str, int], Any]  # by (URI, row): the row and its text, or the reason of a reject


def rows_of(name: str, count: int) -> list[dict[str, Any]]:
    kinds = len(TEXTS) - (name.endswith("parquet"))
    return [{"id": f"{name}-{n}", "text": TEXTS[n % kinds], "lang": "xx", "tags": ["a"] * (n % 3)} for n in range(count)]


def outcomes_of(shard: Shard, carried: pa.Schema) -> list[tuple[tuple[str, int], Any]]:
    """What each row of a shard became, in the order of the shard."""
    found = reader.read_documents(STORE, shard, recipe(CONFIG), carried)
    origins = shard.origins(range(shard.rows))
    outcomes: list[Any] = [None] * shard.rows
    for number, row, text in zip(found.numbers.tolist(), found.rows.to_pylist(), found.texts, strict=True):
        outcomes[number] = (row, text)
    rejects = iter(found.rejects.to_pylist())
    for number, outcome in enumerate(outcomes):
        if outcome is None:
            reject = next(rejects)
            assert (reject["source"], reject["row"]) == origins[number]
            assert reject["content_hash"] is None
            outcomes[number] = (reject["id"], reject["reason"], reject["detail"])
    assert next(rejects, None) is None
    return list(zip(origins, outcomes, strict=True))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Parquet of small row groups, with text as a view in one of them, and JSON lines with known line starts."""
    folder = tmp_path_factory.mktemp("parts")
    table = pa.Table.from_pylist(rows_of("a.parquet", 60))
    pq.write_table(table, folder / "a.parquet", row_group_size=7)
    views = pa.schema([field.with_type(pa.string_view()) if pa.types.is_string(field.type) else field for field in table.schema])
    pq.write_table(table.cast(views), folder / "b.parquet", row_group_size=25)
    write_jsonl(folder / "c.jsonl", rows_of("c.jsonl", 1200))
    packed = gzip.compress((folder / "c.jsonl").read_bytes().replace(b"c.jsonl-", b"d-").replace(b"\n", b"\n\n"))
    (folder / "d.jsonl.gz").write_bytes(packed)
    carried = carried_of(source_objects(STORE, str(folder)), CONFIG)
    parts = [part for shard in shards_of(folder) for part in shard.parts]
    return Corpus(carried, parts, dict(outcome for part in parts for outcome in outcomes_of(Shard((part,)), carried)))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "READ_ROWS", 9)


@st.composite
def some_rows(draw: st.DrawFn, whole: Part) -> Part:
    """A range of an object, or picked rows of it."""
    first = draw(st.integers(0, whole.rows - 1))
    part = whole.slice(first, draw(st.integers(first + 1, min(first + 100, whole.rows))))
    picks = draw(st.none() | st.sets(st.integers(part.start, part.stop - 1), min_size=1, max_size=10))
    return part if picks is None else replace(part, picks=tuple(sorted(picks)))


@given(st.data())
def test_picked_rows_of_many_objects_are_those_of_the_whole(corpus: Corpus, data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from(corpus.parts).flatmap(some_rows), min_size=1, max_size=4))
    shard = Shard(tuple(parts), text_bytes=data.draw(st.sampled_from([0, 10_000])))
    found = outcomes_of(shard, corpus.carried)
    assert found == [(origin, corpus.outcomes[origin]) for origin in shard.origins(range(shard.rows))]


@given(st.data())
def test_carried_columns_are_those_of_the_documents(corpus: Corpus, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.sampled_from(corpus.parts).flatmap(some_rows), max_size=4))
    parts = [replace(part, picks=tuple(row for row in part.object_rows if len(corpus.outcomes[part.uri, row]) == 2)) for part in drawn]
    found = reader.read_carried(STORE, parts, recipe(CONFIG), corpus.carried)
    assert found.schema == corpus.carried
    assert found.to_pylist() == [corpus.outcomes[part.uri, row][0] for part in parts for row in part.object_rows]


def test_a_repeated_id_is_counted_across_the_objects_of_a_shard(corpus: Corpus) -> None:
    (first, second, *_) = corpus.parts
    shard = Shard((first.slice(0, 2), second.slice(0, 2), first.slice(1, 5)))
    found = reader.read_documents(STORE, shard, recipe(CONFIG), corpus.carried)
    assert found.repeated_ids == len(found.rows) - len(set(found.rows["id"].to_pylist())) == 3


def damage(path: Path, group: int, column: str) -> None:
    """Overwrites the pages of one column in one row group. Its size and its time stay."""
    metadata = pq.read_metadata(path)
    (leaf,) = (
        metadata.row_group(group).column(number)
        for number in range(metadata.num_columns)
        if metadata.row_group(group).column(number).path_in_schema == column
    )
    raw = bytearray(path.read_bytes())
    start = leaf.dictionary_page_offset or leaf.data_page_offset
    raw[start : start + leaf.total_compressed_size] = bytes(leaf.total_compressed_size)
    path.write_bytes(raw)


def test_only_row_groups_with_picked_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(30), "text": [f"text {n}" for n in range(30)]}), path, row_group_size=10)
    damage(path, 1, "text")
    (shard,) = shards_of(path)
    carried = pa.schema([pa.field("id", pa.int64(), nullable=False)])

    def read(*picks: int) -> list[str]:
        picked = Shard((replace(shard.parts[0], picks=picks),))
        return reader.read_documents(STORE, picked, recipe(config()), carried).texts

    assert read(3, 9, 20, 29) == ["text 3", "text 9", "text 20", "text 29"]
    with pytest.raises(ObjectError, match=r"a\.parquet: rows 0-30 are unreadable"):
        read(3, 10)
    assert reader.read_carried(STORE, shard.parts, recipe(config()), carried)["id"].to_pylist() == list(range(30))


def test_what_is_no_document_has_no_carried_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": "x"}, {"id": None, "text": "x"}, {"id": "c", "text": ""}])
    (shard,) = shards_of(tmp_path)
    carried = pa.schema([pa.field("id", pa.string(), nullable=False)])
    with pytest.raises(ObjectError, match=r"a\.jsonl: row 1 was planned as a document, but is none: null_id"):
        reader.read_carried(STORE, [shard.parts[0].slice(1, 3)], recipe(config()), carried)


@pytest.mark.parametrize("name", ["0.jsonl", "1.jsonl", "2.jsonl"])
def test_one_bad_object_fails_the_shard_and_is_named(tmp_path: Path, name: str) -> None:
    for number in range(3):
        write_jsonl(tmp_path / f"{number}.jsonl", [{"id": "a", "text": "x"}])
    shard = Shard(tuple(part for each in shards_of(tmp_path) for part in each.parts))
    write_jsonl(tmp_path / name, [{"id": "a", "text": "changed"}])
    carried = pa.schema([pa.field("id", pa.string(), nullable=False)])
    with pytest.raises(ObjectError, match=f"{name}: changed since"):
        reader.read_documents(STORE, shard, recipe(config()), carried)
    with pytest.raises(ObjectError, match=f"{name}: changed since"):
        reader.read_carried(STORE, shard.parts, recipe(config()), carried)
    (tmp_path / name).unlink()
    with pytest.raises(ObjectError, match=f"{name}: changed since"):
        reader.read_documents(STORE, shard, recipe(config()), carried)


def test_a_row_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": "x"}] * 3)
    pq.write_table(pa.table({"id": ["a"] * 3, "text": ["x"] * 3}), tmp_path / "b.parquet", row_group_size=2)
    carried = pa.schema([pa.field("id", pa.string(), nullable=False)])
    for each in shards_of(tmp_path):
        shard = Shard((replace(each.parts[0], stop=9, picks=(1, 2, 3, 8)),))
        with pytest.raises(ObjectError, match="2 rows where 4 were planned"):
            reader.read_documents(STORE, shard, recipe(config()), carried)
