"""Columns by dotted paths: the same from JSON lines and from Parquet, in whole runs with the simulated engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import SourceError
from bulkembed.formats.paths import path_of, value_at
from tests.support.corpora import write_jsonl
from tests.support.nights import complete_run
from tests.support.runs import in_one_process, problems, read_dataset, simulated

Row = dict[str, Any]
ROWS: list[Row] = [
    {"meta": {"id": "a", "at": {"lang": "en"}}, "doc": {"title": "one", "body": "first text", "raw": "x" * 100}},
    {"meta": {"id": "b", "at": None}, "doc": {"title": None, "body": "second text", "raw": "y"}},
    {"meta": {"id": "c", "at": {"lang": "de"}}, "doc": None},
    {"meta": {"id": "d", "at": {"lang": None}}, "doc": {"title": "four", "body": "fourth text", "raw": "z"}},
]
COLUMNS: dict[str, Any] = {"id_column": "meta.id", "text_columns": ["doc.body"], "keep_columns": ["doc.title", "meta.at.lang"]}
FOUND = [
    {"id": "a", "doc.title": "one", "meta.at.lang": "en"},
    {"id": "b", "doc.title": None, "meta.at.lang": None},
    {"id": "d", "doc.title": "four", "meta.at.lang": None},
]


def as_json_lines(folder: Path, rows: list[Row]) -> None:
    write_jsonl(folder / "a.jsonl", rows)


def as_parquet(folder: Path, rows: list[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=3)


def as_duckdb(folder: Path, rows: list[Row]) -> None:
    import duckdb

    duckdb.from_arrow(pa.Table.from_pylist(rows)).write_parquet(str(folder / "a.parquet"))


def as_polars(folder: Path, rows: list[Row]) -> None:
    import polars

    polars.DataFrame(pa.Table.from_pylist(rows)).write_parquet(folder / "a.parquet")


@pytest.mark.parametrize("write", [as_json_lines, as_parquet, as_duckdb, as_polars])
def test_fields_within_columns_are_id_text_and_kept_columns(tmp_path: Path, qwen: str, write: Callable[[Path, list[Row]], None]) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", ROWS)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, **COLUMNS)
    summary, _ = complete_run(cfg)
    assert read_dataset(cfg.output).select(["id", "doc.title", "meta.at.lang"]).to_pylist() == FOUND
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (3, 1)
    (rejects,) = (tmp_path / "out/_meta/rejects").glob("*/*.parquet")
    assert pq.read_table(rejects, columns=["id", "reason"]).to_pylist() == [{"id": "c", "reason": "null_text"}]
    assert problems(cfg.output) == []


def test_a_night_reads_the_same_of_another_format(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    as_json_lines(tmp_path / "in", ROWS)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, **COLUMNS)
    complete_run(cfg)
    (tmp_path / "in/a.jsonl").unlink()
    as_parquet(tmp_path / "in", ROWS)
    summary, embedded = complete_run(cfg)
    assert (embedded, summary.night.added, summary.night.changed, summary.night.deleted) == (0, 0, 0, 0)


def test_openai_batches(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    lines = [
        {"custom_id": f"request-{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": f"text {n}"}}
        for n in range(3)
    ]
    write_jsonl(tmp_path / "in/batch.jsonl", lines)
    columns = {"id_column": "custom_id", "text_columns": ["body.input"], "keep_columns": ["body.model"]}
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen, **columns))
    found = read_dataset(tmp_path / "out")
    assert found["id"].to_pylist() == ["request-0", "request-1", "request-2"]
    assert found["body.model"].to_pylist() == ["m"] * 3


@pytest.mark.parametrize("write", [as_json_lines, as_parquet])
def test_a_column_whose_own_name_has_the_dot_comes_first(tmp_path: Path, qwen: str, write: Callable[[Path, list[Row]], None]) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", [{"id": 1, "doc.body": "own", "doc": {"body": "within"}, "x.y": {"z.w": "deep"}, "lang": "x"}])
    kept = {"keep_columns": ["doc.body", "x.y.z.w"], "text_columns": ["lang"]}
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen, **kept))
    assert read_dataset(tmp_path / "out").select(["doc.body", "x.y.z.w"]).to_pylist() == [{"doc.body": "own", "x.y.z.w": "deep"}]


def test_only_the_leaves_that_are_needed_are_read(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    as_parquet(tmp_path / "in", ROWS)
    asked: list[set[str]] = []
    iter_batches = pq.ParquetFile.iter_batches

    def noted(file: pq.ParquetFile, *arguments: Any, columns: list[str], **more: Any) -> Any:
        asked.append(set(columns))
        return iter_batches(file, *arguments, columns=columns, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen, **COLUMNS))
    assert asked
    assert set.union(*asked) == {"meta.id", "doc.body", "doc.title", "meta.at.lang"}


@pytest.mark.parametrize("write", [as_json_lines, as_parquet])
def test_a_path_that_leads_nowhere_is_named(tmp_path: Path, qwen: str, write: Callable[[Path, list[Row]], None]) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", ROWS)
    with pytest.raises(SourceError, match=r"no column 'doc\.boddy'; its columns are meta, doc"):
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **(COLUMNS | {"text_columns": ["doc.boddy"]})))


def test_numbers_within_columns_are_exact(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    line = '{"meta": {"id": 123456789012345678901234567890, "price": 0.12345678901234567890}, "text": "t"}\n'
    (tmp_path / "in/a.jsonl").write_text(line, encoding="utf-8")
    types = {"meta": {"id": "string"}, "meta.price": "string"}  # as TOML has meta.id and "meta.price"
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, id_column="meta.id", keep_columns=["meta.price"], column_types=types)
    complete_run(cfg)
    (row,) = read_dataset(cfg.output).select(["id", "meta.price"]).to_pylist()
    assert row == {"id": "123456789012345678901234567890", "meta.price": "0.12345678901234567890"}


def test_a_later_value_within_a_column_is_found(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    rows: list[Row] = [{"id": n, "text": f"t {n}", "meta": {"x": 1}} for n in range(1001)]
    write_jsonl(tmp_path / "in/a.jsonl", [*rows, {"id": 1001, "text": "t", "meta": {"x": 1, "lang": "de"}}])
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["meta.lang"]))
    assert read_dataset(tmp_path / "out")["meta.lang"].to_pylist() == [None] * 1001 + ["de"]


NAMES = st.sampled_from(["a", "b", "a.b", "b.a", "a.a"])
VALUES = st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join))
def test_json_and_arrow_find_the_same_value(row: Row, name: str) -> None:
    table = pa.Table.from_pylist([row])
    path = path_of(table.schema, name)
    is_there, value = value_at(row, name)
    assert is_there == (path is not None)
    if path is not None:
        found: Any = json.loads(json.dumps(row))
        for part in path:
            found = found[part]
        assert found == value
