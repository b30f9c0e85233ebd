"""Hive parts of names as kept columns, ids made of object and row, and `keep_columns = ["*"]`: in whole runs with the simulated engine."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.errors import BulkembedError, ConfigError, IncompleteError, SourceError
from bulkembed.report.run_text import plan_text
from bulkembed.source.place_columns import hive_parts
from tests.support.corpora import write_jsonl
from tests.support.nights import complete_run
from tests.support.runs import in_one_process, problems, read_dataset, simulated

Row = dict[str, Any]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("dt=2026-11-26/lang=de/a.jsonl", {"dt": "2026-11-26", "lang": "de"}),
        ("a.jsonl", {}),
        ("x=1.jsonl", {}),  # the name of a file is no part
        ("plain/city=S%C3%A3o%20Paulo%2FX/a.parquet", {"city": "S\xe3o Paulo/X"}),
        ("k=__HIVE_DEFAULT_PARTITION__/a", {"k": None}),
        ("k=/q=a=b/=v/a", {"k": "", "q": "a=b"}),
        ("k=1/k=2/a", {"k": "2"}),
    ],
)
def test_hive_parts(path: str, parts: dict[str, str | None]) -> None:
    assert hive_parts(path) == parts


def as_pyarrow(folder: Path, table: pa.Table) -> None:
    ds.write_dataset(table, folder, format="parquet", partitioning=ds.partitioning(pa.schema([("dt", pa.string())]), flavor="hive"))


def as_duckdb(folder: Path, table: pa.Table) -> None:
    import duckdb

    relation = duckdb.from_arrow(table)
    duckdb.sql(f"copy (from relation) to '{folder}' (format parquet, partition_by (dt))")
    assert relation is not None


def as_polars(folder: Path, table: pa.Table) -> None:
    import polars

    polars.DataFrame(table).write_parquet(folder, partition_by="dt")


def as_json_lines(folder: Path, table: pa.Table) -> None:
    for row in table.to_pylist():
        part = folder / f"dt={row.pop('dt') or '__HIVE_DEFAULT_PARTITION__'}".replace(" ", "%20")
        part.mkdir(parents=True)
        write_jsonl(part / "a.jsonl", [row])


@pytest.mark.parametrize("write", [as_pyarrow, as_duckdb, as_polars, as_json_lines])
def test_hive_parts_are_kept_where_they_are_named(tmp_path: Path, qwen: str, write: Callable[[Path, pa.Table], None]) -> None:
    write(tmp_path / "in", pa.table({"id": [1, 2, 3], "text": ["a", "b", "c"], "lang": ["x"] * 3, "dt": ["2026-11-26", "26 Nov", None]}))
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["dt"])
    complete_run(cfg)
    found = read_dataset(cfg.output).select(["id", "dt"]).sort_by("id")
    assert found.to_pylist() == [{"id": 1, "dt": "2026-11-26"}, {"id": 2, "dt": "26 Nov"}, {"id": 3, "dt": None}]
    assert problems(cfg.output) == []
    without = simulated(tmp_path / "in", tmp_path / "without", qwen, keep_columns=["lang"])
    complete_run(without)
    assert "dt" not in read_dataset(without.output).column_names


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_column_of_the_file_comes_before_a_part_of_its_name(tmp_path: Path, qwen: str, suffix: str) -> None:
    folder = tmp_path / "in/lang=path"
    folder.mkdir(parents=True)
    rows: list[Row] = [{"id": 1, "text": "a", "lang": "file"}, {"id": 2, "text": "b", "lang": None}]
    if suffix == "jsonl":
        write_jsonl(folder / "a.jsonl", [*rows, {"id": 3, "text": "c"}])
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        pq.write_table(pa.table({"id": [3], "text": ["c"]}), folder / "b.parquet")
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert read_dataset(tmp_path / "out").sort_by("id")["lang"].to_pylist() == ["file", None, "path"]


def test_a_night_sees_that_a_file_has_moved_to_another_part(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in/dt=1").mkdir(parents=True)
    write_jsonl(tmp_path / "in/dt=1/a.jsonl", [{"id": n, "text": f"t {n}"} for n in range(3)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["dt"])
    assert complete_run(cfg)[1] == 3
    (tmp_path / "in/dt=1").rename(tmp_path / "in/dt=2")
    summary, embedded = complete_run(cfg)
    assert (embedded, summary.night.changed) == (0, 3)
    assert read_dataset(cfg.output)["dt"].to_pylist() == ["2"] * 3


# Ids made of object and row


def c4(folder: Path, **files: list[str]) -> None:
    """Files in the form of C4, which has no ids."""
    folder.mkdir(exist_ok=True)
    for name, texts in files.items():
        lines = (json.dumps({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://x.org"}) for text in texts)
        with gzip.open(folder / f"c4-train.{name}-of-01024.json.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))


def by_row(tmp_path: Path, model: str, **changes: Any) -> RunConfig:
    places = {"source": tmp_path / "in", "output": tmp_path / "out"}
    return simulated(**(places | {"model": model, "id_column": "row", "keep_columns": ["url"]} | changes))


def ids(cfg: RunConfig) -> dict[str, list[float]]:
    table = read_dataset(cfg.output)
    return dict(zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True))


def test_ids_of_object_and_row(tmp_path: Path, qwen: str) -> None:
    c4(tmp_path / "in", **{"00000": ["one", "", "three"], "00001": ["four"]})
    cfg = by_row(tmp_path, qwen, keep_columns=["*"])
    summary, _ = complete_run(cfg)
    told = " ".join(plan_text(summary.job, summary.plan).split())
    assert "ids object and row number kept timestamp, url" in told
    first, second = (f"c4-train.{number}-of-01024.json.gz" for number in ("00000", "00001"))
    assert list(ids(cfg)) == [f"{first}:0", f"{first}:2", f"{second}:0"]
    (rejects,) = (tmp_path / "out/_meta/rejects").glob("*/*.parquet")
    assert pq.read_table(rejects, columns=["id", "row"]).to_pylist() == [{"id": f"{first}:1", "row": 1}]
    assert problems(cfg.output) == []
    shutil.copytree(tmp_path / "in", tmp_path / "mounted elsewhere")
    other = by_row(tmp_path, qwen, keep_columns=["*"], source=str(tmp_path / "mounted elsewhere"), output=str(tmp_path / "other"))
    complete_run(other)
    assert ids(other) == ids(cfg)


def test_ids_stay_over_nights_and_vectors_are_carried_where_objects_are_cut_anew(tmp_path: Path, qwen: str) -> None:
    texts = [f"text {number}" for number in range(30)]
    c4(tmp_path / "in", **{"00000": texts[:20], "00001": texts[20:]})
    cfg = by_row(tmp_path, qwen, max_deletes=0.99)
    assert complete_run(cfg)[1] == 30
    before = ids(cfg)
    c4(tmp_path / "in", **{"00002": ["a new one"]})
    summary, embedded = complete_run(cfg)
    assert (embedded, summary.night.added, summary.night.deleted) == (1, 1, 0)
    assert {name: ids(cfg)[name] for name in before} == before
    c4(tmp_path / "in", **{"00000": texts[:10], "00001": texts[10:]})
    assert complete_run(cfg)[1] == 0
    after = ids(cfg)
    assert after["c4-train.00001-of-01024.json.gz:0"] == before["c4-train.00000-of-01024.json.gz:10"]
    assert len(after) == 31


def test_rows_of_parquet_are_counted_over_row_groups(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    texts = [f"text {number}" if number % 3 else None for number in range(50)]
    pq.write_table(pa.table({"text": texts, "url": ["u"] * 50}), tmp_path / "in/a.parquet", row_group_size=7)
    complete_run(by_row(tmp_path, qwen))
    assert list(ids(by_row(tmp_path, qwen))) == [f"a.parquet:{number}" for number in range(50) if number % 3]


def test_a_column_called_row_comes_first(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"row": 7, "text": "a", "url": "u"}, {"text": "b", "url": "u"}])
    summary, _ = complete_run(by_row(tmp_path, qwen))
    assert "the column 'row' of the source" in plan_text(summary.job, summary.plan)
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [7]
    (rejects,) = (tmp_path / "out/_meta/rejects").glob("*/*.parquet")
    assert pq.read_table(rejects)["reason"].to_pylist() == ["null_id"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_column_called_row_in_some_objects_only_is_refused(tmp_path: Path, qwen: str, suffix: str) -> None:
    def write(name: str, rows: list[Row]) -> None:
        if suffix == "jsonl":
            write_jsonl(tmp_path / f"in/{name}.jsonl", rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"in/{name}.parquet")

    (tmp_path / "in").mkdir()
    write("a", [{"text": "a", "url": "u"}])
    cfg = by_row(tmp_path, qwen)
    complete_run(cfg)
    write("b", [{"row": 1, "text": "b", "url": "u"}])
    with pytest.raises((IncompleteError, BulkembedError), match=r"has a column 'row', and the objects that this line began with had none"):
        in_one_process(cfg).require_complete()
    with pytest.raises(SourceError, match=r"'row' is a column of .*b.*, and not of .*a"):
        in_one_process(cfg.model_copy(update={"output": str(tmp_path / "new")}))


def test_objects_of_one_path_below_several_places_are_refused(tmp_path: Path, qwen: str) -> None:
    for place in ("x", "y"):
        c4(tmp_path / place, **{"00000": [f"text of {place}"]})
    cfg = by_row(tmp_path, qwen, source=[str(tmp_path / "x"), str(tmp_path / "y")])
    with pytest.raises(ConfigError, match=r"c4-train\.00000-of-01024\.json\.gz is below 2 places of the source; give a folder above them"):
        in_one_process(cfg)


# Every column


def test_every_column_but_the_text_is_kept(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in/dt=1").mkdir(parents=True)
    write_jsonl(tmp_path / "in/dt=1/a.jsonl", [{"id": 1, "text": "a", "url": "u", "meta": {"x": 1}}, {"id": 2, "text": "b", "score": 1.5}])
    pq.write_table(pa.table({"id": [3], "text": ["c"], "url": ["v"], "extra": [True]}), tmp_path / "in/b.parquet")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["*"])
    complete_run(cfg)
    found = read_dataset(cfg.output).drop_columns(["embedding", "n_tokens", "truncated", "content_hash"]).sort_by("id").to_pylist()
    none = {"url": None, "extra": None, "meta": None, "score": None, "dt": None}
    assert found == [
        none | {"id": 1, "url": "u", "meta": {"x": 1}, "dt": "1"},
        none | {"id": 2, "score": 1.5, "dt": "1"},
        none | {"id": 3, "url": "v", "extra": True},
    ]
    assert problems(cfg.output) == []


def test_a_text_column_is_kept_where_it_is_named_beside(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": 1, "text": "a", "lang": "x"}])
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["*", "text"]))
    assert read_dataset(tmp_path / "out").column_names[:3] == ["id", "lang", "text"]


def test_every_column_means_the_same_over_nights(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": 1, "text": "a", "lang": "x", "url": "u"}])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["*"])
    write_jsonl(tmp_path / "in/b.jsonl", [{"id": 2, "text": "b", "lang": "y", "n": 1}])
    first, _ = complete_run(cfg)
    write_jsonl(tmp_path / "in/c.jsonl", [{"id": 3, "text": "c"}])
    second, embedded = complete_run(cfg)
    assert (second.job.line, embedded) == (first.job.line, 1)
    assert read_dataset(cfg.output).column_names[:4] == ["id", "lang", "url", "n"]
    for name, rows in (("d.jsonl", [{"id": 4, "text": "d", "more": 1}]), ("d.parquet", [{"id": 4, "text": "d", "more": 1}])):
        path = tmp_path / "in" / name
        write_jsonl(path, rows) if name.endswith("jsonl") else pq.write_table(pa.Table.from_pylist(rows), path)
        with pytest.raises(ConfigError, match=rf"'\*' stands for the columns .*{name} has another one, 'more'; nothing was changed"):
            in_one_process(cfg)
        path.unlink()
    assert read_dataset(cfg.output).num_rows == 3


def test_a_column_that_the_output_needs_for_itself_is_refused(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": 1, "text": "a", "embedding": [1.0]}])
    with pytest.raises(ConfigError, match=r"'\*' would keep 'embedding' of .*a\.jsonl, which is the name of an output column; name those"):
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["*"]))
