"""CSV and TSV as their tools write them: every row is a document or a reject, and no cell moves to another column."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import SourceError
from bulkembed.formats import rows as rows_module
from bulkembed.formats import text_lines
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from bulkembed.source.scan import scan_object
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, read

TEXTS = ["plain", 'quote " inside', "line\nbreak", "comma, tab\t", "ünï", "CR\r\nLF", " spaces ", "last"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "PART_ROWS", 3)


def found(path: Path, max_rows: int = 10**6, **changes: Any) -> list[tuple[Any, str]]:
    parts = read(path, config(**changes), max_rows)
    return [pair for part in parts for pair in zip(part.rows["id"].to_pylist(), part.texts, strict=True)]


def pyarrow_csv(path: Path, table: pa.Table) -> None:
    pa.csv.write_csv(table, path)


def polars_csv(path: Path, table: pa.Table) -> None:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_csv(path)


def polars_tsv(path: Path, table: pa.Table) -> None:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_csv(path.with_suffix(".tsv"), separator="\t", include_bom=True)


def duckdb_csv(path: Path, table: pa.Table) -> None:
    with duckdb.connect() as connection:
        connection.register("rows", table)
        connection.sql(f"copy rows to '{path}.gz' (header, compression gzip)")


def python_tsv(path: Path, table: pa.Table) -> None:
    with gzip.open(path.with_suffix(".tsv.gz"), "wt", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(table.column_names)
        writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.mark.parametrize("write", [pyarrow_csv, polars_csv, polars_tsv, duckdb_csv, python_tsv])
@pytest.mark.parametrize("max_rows", [2, 100])
def test_what_tools_write_comes_back(tmp_path: Path, write: Any, max_rows: int) -> None:
    write(tmp_path / "a.csv", pa.table({"lang": ["xx"] * 8, "text": TEXTS, "id": range(8)}))
    assert found(tmp_path, max_rows) == [(str(number), text) for number, text in enumerate(TEXTS)]
    assert found(tmp_path, max_rows, column_types={"id": "int64"}) == list(enumerate(TEXTS))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]), st.integers(1, 4))
def test_any_cells_come_back_from_any_shard(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], end: str, max_rows: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        # Python does not quote a CR where it ends lines in LF.
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if "\r" in "".join(map("".join, pairs)) else csv.QUOTE_MINIMAL)
        writer.writerow(["id", "kept", "text"])
        writer.writerows((number, *pair) for number, pair in enumerate(pairs))
    cfg = config(keep_columns=["kept"])
    parts = read(path, cfg, max_rows)
    accepted = [(int(row["id"]), row["kept"], text) for part in parts for row, text in zip(part.rows.to_pylist(), part.texts, strict=True)]
    rejected = [int(number) for part in parts for number in part.rejects["id"].to_pylist()]
    assert sorted([number for number, *_ in accepted] + rejected) == list(range(len(pairs)))
    assert accepted == [(number, pairs[number][0] or None, pairs[number][1]) for number, *_ in accepted]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows_module, "BATCH_ROWS", 2)
        (item,) = source_objects(STORE, str(path))
        scan = scan_object(STORE, item, recipe(cfg), carried_of([item], cfg))
    assert (scan.keys.rows.tolist(), scan.rejects["row"].to_pylist()) == ([number for number, *_ in accepted], rejected)
    assert scan.layout == layout_of(STORE, item)


def test_a_row_that_does_not_fit_is_a_reject(tmp_path: Path) -> None:
    rows = [b"id,text,n", b"0,a,1", b"1,b", b"", b"2,c,3,4", b"3,caf\xe9,5", b"4,d,six", b",e,7", b'5,"f",', b"6\xff,g,8"]
    (tmp_path / "a.csv").write_bytes(b"\n".join(rows))
    (part,) = read(tmp_path, config(keep_columns=["n"], column_types={"n": "int64"}))
    assert part.rows.to_pylist() == [{"id": "0", "n": 1}, {"id": "5", "n": None}]
    assert part.texts == ["a", "f"]
    assert part.rejects.select(["row", "id", "reason"]).to_pylist() == [
        {"row": 1, "id": None, "reason": "not_csv"},
        {"row": 2, "id": None, "reason": "not_csv"},
        {"row": 3, "id": "3", "reason": "undecodable"},
        {"row": 4, "id": "4", "reason": "wrong_type"},
        {"row": 5, "id": None, "reason": "null_id"},
        {"row": 7, "id": None, "reason": "undecodable"},
    ]


@pytest.mark.parametrize(
    ("kind", "cells", "values"),
    [
        ("int64", ["7", "-7", "+7", "007", "7.0", "9223372036854775808", " 7 "], [7, -7, 7, 7, 7, None, 7]),
        ("double", ["7", "2.50", "1e3", "nan", "12345678901234567890123", "x"], [7.0, 2.5, 1000.0, "nan", None, None]),
        ("bool", ["true", "False", "t", "1"], [True, False, True, None]),
        ("string", ["007", " 7 "], ["007", " 7 "]),
        ("date32", ["2026-11-26", "26.11.2026"], ["2026-11-26", None]),
        (
            "timestamp[us]",
            ["2026-11-26 01:02:03.5", "2026-11-26T01:02:03", "2026-11-26T01:02:03Z", "x"],
            [".500000", "01:02:03", None, None],
        ),
    ],
)
def test_declared_types_take_the_texts_that_they_hold(tmp_path: Path, kind: str, cells: list[str], values: list[Any]) -> None:
    (tmp_path / "a.csv").write_text("id,text,n\n" + "".join(f"{number},a,{cell}\n" for number, cell in enumerate(cells)))
    (part,) = read(tmp_path, config(keep_columns=["n"], column_types={"n": kind}))
    kept = dict(zip(part.rows["id"].to_pylist(), part.rows["n"].to_pylist(), strict=True))
    for number, value in enumerate(values):
        assert (str(number) in kept) == (value is not None), cells[number]
        if isinstance(value, str):
            assert value in str(kept[str(number)])
        elif value is not None:
            assert kept[str(number)] == value
    assert part.rejects["reason"].to_pylist() == ["wrong_type"] * values.count(None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('id,text\n1,"open\n2,b\n', r"lines 2 to 3 are no row of CSV"),
        ('id,text\n1,"a" b\n2,b\n', r"lines 2 to 2 are no row of CSV"),
        ("1,a\n2,b\n", r"no column 'id'; its columns are 1, a"),
        ("id;text\n1;a\n", r"its columns are id;text"),
        ("id,text,text\n1,a,b\n", r"2 columns named 'text'"),
    ],
)
def test_what_could_shift_a_column_fails_in_one_line(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    with pytest.raises(SourceError, match=problem):
        found(tmp_path)


def test_a_name_that_is_not_utf8_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text,caf\xe9\n1,a,b\n")
    assert found(tmp_path) == [("1", "a")]


def test_a_cr_within_a_cell_stays_though_pandas_does_not_quote_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,a\rb\n2,"\r\nc\r"\n3,d\r\n')
    assert found(tmp_path) == [("1", "a\rb"), ("2", "\r\nc\r"), ("3", "d")]


def test_cr_alone_ends_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\r1,a\r2,"b\rc"\r\r3,d\r')
    assert found(tmp_path, 2) == [("1", "a"), ("2", "b\rc"), ("3", "d")]


def test_a_long_cell_is_read_and_a_longer_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(f'id,text\n1,"{"x" * 200_000}"\n')
    assert len(found(tmp_path)[0][1]) == 200_000, "more than Python's own limit of a cell"
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 1000)
    with pytest.raises(SourceError, match=r"line 2 has 200,005 bytes, more than"):
        found(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b"id,text\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    (item,) = source_objects(STORE, str(tmp_path))
    assert layout_of(STORE, item).rows == 0
    assert scan_object(STORE, item, recipe(config()), pa.schema([pa.field("id", pa.string(), nullable=False)])).counts.rows == 0
