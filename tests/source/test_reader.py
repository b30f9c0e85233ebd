import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import ObjectError, SourceError
from bulkembed.source import reader
from bulkembed.source.column_types import plain_type
from tests.support.corpora import documents, write_jsonl
from tests.support.models import recipe
from tests.support.reading import STORE, config, read, shards_of


def write(path: Path, rows: list[dict[str, Any]], row_group_size: int = 7) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    else:
        write_jsonl(path.with_suffix("") if path.suffix in (".gz", ".zst") else path, rows)
        if path.suffix in (".gz", ".zst"):
            raw = path.with_suffix("").read_bytes()
            half = raw.index(b"\n", len(raw) // 2) + 1
            compress = gzip.compress if path.suffix == ".gz" else zstd.compress
            # Two members: what parallel compressors and appended logs write.
            path.write_bytes(compress(raw[:half]) + compress(raw[half:]))
            path.with_suffix("").unlink()
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("max_rows", [1, 5, 9, 1000])
def test_shards_together_are_the_whole_object(tmp_path: Path, name: str, max_rows: int) -> None:
    rows = documents(50)
    path = write(tmp_path / name, rows)
    parts = read(path, config(keep_columns=["lang"]), max_rows)
    assert [text for part in parts for text in part.texts] == [row["text"] for row in rows]
    assert [row for part in parts for row in part.rows.to_pylist()] == [{"id": row["id"], "lang": "xx"} for row in rows]


def test_long_jsonl_is_read_from_the_middle(tmp_path: Path) -> None:
    rows = [{"id": number, "text": f"text {number}"} for number in range(5000)]
    parts = read(write(tmp_path / "a.jsonl", rows), config(), 700)
    assert [text for part in parts for text in part.texts] == [row["text"] for row in rows]


def test_a_template_holds_braces_and_line_breaks(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "title": "T", "body": "{B}"}, {"id": 2, "title": None, "body": "b"}]
    cfg = config(text_columns=["title", "body"], template="{{x}} {{{title}}}\n\n{body}")
    (found,) = read(write(tmp_path / "a.jsonl", rows), cfg)
    assert found.texts == ["{x} {T}\n\n{B}", "{x} {}\n\nb"]


BAD: list[Any] = ["fine", None, "", "  \n", 7, ["list"], {"a": 1}, "also fine"]


def test_bad_documents_are_rejected_with_a_reason(tmp_path: Path) -> None:
    rows = [{"id": f"d{number}", "text": text} for number, text in enumerate(BAD)]
    path = tmp_path / "a.jsonl"
    write_jsonl(path, rows)
    with path.open("ab") as file:
        file.write(
            b'not json\n\n[1]\n{"id": null, "text": "x"}\n{"id": 5, "text": "x"}\n{"text": "x"}\n{"id": "d9", "text": "lone \\ud800"}\n'
        )
        file.write(b'{"id": "d10", "text": "caf\xe9"}\n{"id": "d0", "text": "repeated"}\n')
    (found,) = read(path, config())
    assert found.texts == ["fine", "also fine", "x", "lone \ufffd", "repeated"]
    assert found.rows["id"].to_pylist() == ["d0", "d7", "5", "d9", "d0"]
    assert found.repeated_ids == 1
    assert [(row["row"], row["id"], row["reason"]) for row in found.rejects.to_pylist()] == [
        (1, "d1", "null_text"),
        (2, "d2", "empty_text"),
        (3, "d3", "empty_text"),
        (4, "d4", "not_text"),
        (5, "d5", "not_text"),
        (6, "d6", "not_text"),
        (8, None, "not_json"),
        (9, None, "not_json"),
        (10, None, "null_id"),
        (12, None, "null_id"),
        (14, "d10", "undecodable"),
    ]


def test_bytes_that_are_no_text_are_rejected_in_parquet(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"bad \xff", None, b"caf\xc3\xa9"], pa.binary())
    # The same bytes under a string type, as careless writers leave them.
    for name, column in (
        ("binary.parquet", raw),
        ("string.parquet", pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])),
    ):
        pq.write_table(pa.table({"id": [1, 2, 3, 4], "text": column}), tmp_path / name)
        (found,) = read(tmp_path / name, config())
        assert found.texts == ["good", "café"]
        assert [(row["id"], row["reason"]) for row in found.rejects.to_pylist()] == [(2, "undecodable"), (3, "null_text")]


@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=5), st.integers(), st.booleans(), st.binary(max_size=5).map(list)), min_size=1, max_size=30
    )
)
def test_every_row_is_a_document_or_a_reject_exactly_once(tmp_path_factory: pytest.TempPathFactory, texts: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    write_jsonl(path, [{"id": number, "text": text} for number, text in enumerate(texts)])
    (found,) = read(path, config())
    kept, rejected = found.rows["id"].to_pylist(), found.rejects["row"].to_pylist()
    assert sorted([*kept, *rejected]) == list(range(len(texts)))
    assert kept == sorted(kept)
    assert found.texts == [texts[number] for number in kept]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, 2], pa.uint8()),
        pa.array(["a", "b"], pa.large_string()),
        pa.array([b"\x00", b"\xff"], pa.binary(1)),
        pa.array([1.5, 2.5], pa.float32()),
        pa.array([Decimal("1.10"), Decimal("2.20")], pa.decimal128(10, 2)),
        pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        pa.array([True, False]),
        pa.array(["a", "b"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_ids_of_any_scalar_type_come_back_unchanged(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"key": ids, "text": ["x", "y"]}), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet", config(id_column="key"))
    assert found.rows["id"].to_pylist() == ids.to_pylist()
    assert found.rows["id"].type == plain_type(ids.type)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_text_columns_are_joined_by_the_template(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "a": "A{b}", "b": "B"}, {"id": 2, "a": None, "b": "B"}, {"id": 3, "a": None, "b": None}]
    cfg = config(text_columns=["a", "b"], template="{a}: {{{b}}}")
    (found,) = read(write(tmp_path / name, rows), cfg)
    assert found.texts == ["A{b}: {B}", ": {B}"]
    assert found.rejects["reason"].to_pylist() == ["null_text"]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_the_id_may_be_kept_under_its_own_name_too(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [{"url": "u/1", "text": "x"}])
    (found,) = read(tmp_path / name, config(id_column="url", keep_columns=["url"]))
    assert found.rows.to_pylist() == [{"id": "u/1", "url": "u/1"}]


def test_only_needed_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "text": ["x"], "unused": ["y" * 100]}), path)
    unused = pq.read_metadata(path).row_group(0).column(2)
    raw = bytearray(path.read_bytes())
    start = unused.dictionary_page_offset or unused.data_page_offset
    raw[start : start + unused.total_compressed_size] = bytes(unused.total_compressed_size)
    path.write_bytes(raw)
    with pytest.raises(OSError, match=r"Parquet|page"):
        pq.read_table(path)
    (found,) = read(path, config())
    assert (found.texts, found.rows["id"].to_pylist()) == (["x"], [1])


def test_a_type_that_changes_between_files_shows_both(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), tmp_path / "a.parquet")
    (shard,) = shards_of(tmp_path)
    with pytest.raises(ObjectError, match="type string, but int64"):
        reader.read_documents(STORE, shard, recipe(config()), pa.schema([pa.field("id", pa.int64(), nullable=False)]))


def test_an_object_that_changed_since_it_was_planned_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", documents(5))
    (shard,) = shards_of(path)
    write(path, documents(6))
    with pytest.raises(ObjectError, match="changed since"):
        reader.read_documents(STORE, shard, recipe(config()), pa.schema([pa.field("id", pa.int64(), nullable=False)]))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_truncated_object_is_an_error(tmp_path: Path, name: str, at: float) -> None:
    path = write(tmp_path / name, documents(50))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * at)])
    with pytest.raises(SourceError, match="not a readable"):
        read(path, config())
