"""The types of a line: by all footers and all rows of a first run, settled by its first whole snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import paths
from bulkembed.dataset.snapshots import snapshot_files
from bulkembed.errors import ConfigError
from bulkembed.report import run_text
from bulkembed.runs import row_types
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary
from bulkembed.runs.run import run as whole_run
from bulkembed.source import columns, json_columns
from tests.support.corpora import write_jsonl
from tests.support.runs import Recorder, in_one_process, live_names, problems, read_dataset, simulated

Row = dict[str, Any]


def rows_of(values: list[Any], first: int = 0) -> list[Row]:
    return [{"id": first + number, "text": f"document {first + number}", "kept": value} for number, value in enumerate(values)]


def write(folder: Path, name: str, rows: list[Row]) -> None:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / f"{name}.jsonl", rows)


def config(folder: Path, qwen: str, **changes: Any) -> RunConfig:
    return simulated(folder / "in", folder / "out", qwen, **({"keep_columns": ["kept"]} | changes))


def run(folder: Path, qwen: str, **changes: Any) -> Summary:
    summary = in_one_process(config(folder, qwen, **changes))
    summary.require_complete()
    assert problems(folder / "out") == []
    return summary


def kept(folder: Path) -> dict[Any, Any]:
    table = read_dataset(folder / "out")
    return dict(zip(table["id"].to_pylist(), table["kept"].to_pylist(), strict=True))


@pytest.fixture
def sample_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "SAMPLE_LINES", 1)
    monkeypatch.setattr(columns, "MAX_SAMPLED", 1)


@pytest.mark.usefixtures("sample_of_one")
@pytest.mark.parametrize(
    ("values", "back", "kind"),
    [
        ([1, 1.5], [1, 1.5], "double"),
        ([1, 2**64 - 1], [1, 2**64 - 1], "decimal128(20, 0)"),
        ([1.5, 2**53 + 1, 2], ["1.5", "9007199254740993", "2"], "string"),
        ([1, "x", None, {"a": [10**20]}], ["1", "x", None, '{"a":[100000000000000000000]}'], "string"),
        ([{"a": 1}, {"a": 1, "lang": "de"}], [{"a": 1, "lang": None}, {"a": 1, "lang": "de"}], "struct<a: int64, lang: string>"),
        ([{}, {"a": {}}, {"a": {"b": 1}}], [{"a": None}, {"a": {"b": None}}, {"a": {"b": 1}}], "struct<a: struct<b: int64>>"),
        ([None, None, 7], [None, None, 7], "int64"),
        ([None, [], [2.5]], [None, [], [2.5]], "list<element: double>"),
        ([{}, {}], ["{}", "{}"], "string"),
        ([None, None], [None, None], "string"),
    ],
)
def test_a_value_beyond_the_first_rows_widens_the_type(tmp_path: Path, qwen: str, values: list[Any], back: list[Any], kind: str) -> None:
    for number, row in enumerate(rows_of(values)):
        write(tmp_path / "in", f"{number}", [row])
    summary = run(tmp_path, qwen)
    assert list(kept(tmp_path).values()) == back
    assert str(read_dataset(tmp_path / "out").schema.field("kept").type) == kind
    assert summary.snapshot
    assert summary.snapshot.rejects == 0
    assert summary.snapshot.json_text == (["kept"] if kind == "string" and any(value is not None for value in values) else [])


@pytest.mark.usefixtures("sample_of_one")
def test_a_plan_and_a_run_name_the_columns_that_are_json_text(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of([1, {"a": 2}]))
    pq.write_table(pa.table({"id": [7], "text": ["t"]}), tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.jsonl").write_bytes(b'{"id": 9, "text": "x", "kept": "caf\xe9"}\n')
    job, plan = open_job(config(tmp_path, qwen))
    told = run_text.plan_text(job, plan)
    summary = run(tmp_path, qwen)
    for text in (told, run_text.summary_text(summary.job, summary, 1.0)):
        assert "kept: no other type holds the values" in text
        assert "kept is not in 1 of 3 new objects" in text
        assert "1 new rows hold what is no Unicode" in text
    assert kept(tmp_path) == {0: "1", 1: '{"a":2}', 7: None, 9: "caf\ufffd"}


def test_the_types_of_a_line_hold_over_nights(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of([1.5, 2.5]))
    run(tmp_path, qwen)
    write(tmp_path / "in", "b", rows_of([3], first=2))
    pq.write_table(pa.table({"id": [3], "text": ["t"], "kept": pa.array([4], pa.int8())}), tmp_path / "in" / "c.parquet")
    summary = run(tmp_path, qwen)
    assert kept(tmp_path) == {0: 1.5, 1: 2.5, 2: 3.0, 3: 4.0}
    assert summary.progress.counts.documents == 2


@pytest.mark.parametrize(
    ("value", "entry"),
    [(2.5, "double"), ("x", "string"), (2**64 - 1, "decimal128(20, 0)"), ({"a": 1}, "string"), (10**30, "string")],
)
def test_a_value_that_no_longer_fits_stops_the_night_and_names_the_entry(tmp_path: Path, qwen: str, value: Any, entry: str) -> None:
    write(tmp_path / "in", "a", rows_of([1, 2]))
    run(tmp_path, qwen)
    before = live_names(tmp_path / "out")
    write(tmp_path / "in", "b", rows_of([3, value], first=2))
    with pytest.raises(ConfigError) as raised:
        run(tmp_path, qwen)
    assert raised.value.exit_code == 2
    line = str(raised.value)
    assert "column_types: 'kept' is int64 in the files of this line" in line
    assert f"b.jsonl: row 1: kept is {value!r}, not int64" in line
    assert f'set column_types.kept = "{entry}"' in line
    assert live_names(tmp_path / "out") == before
    summary = run(tmp_path, qwen, column_types={"kept": entry})
    assert summary.progress.counts.documents == 2, "the vectors of the first night serve"
    table = read_dataset_of(summary, tmp_path)
    expected = (
        [1, 2, 3, value] if entry != "string" else ["1", "2", "3", value if isinstance(value, str) else json.dumps(value).replace(" ", "")]
    )
    assert sorted(zip(table["id"].to_pylist(), table["kept"].to_pylist(), strict=True)) == list(enumerate(expected))


def read_dataset_of(summary: Summary, folder: Path) -> pa.Table:
    assert summary.snapshot
    store, output = summary.job.store, str(folder / "out")
    names = snapshot_files(store, output, summary.snapshot)
    return pa.concat_tables([pq.ParquetFile(paths.data_uri(output, summary.snapshot.fingerprint, name)).read() for name in names])


def test_a_column_of_another_type_stops_the_night(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1], "text": ["a"], "kept": [1]}), tmp_path / "in" / "a.parquet")
    run(tmp_path, qwen)
    pq.write_table(pa.table({"id": [2], "text": ["b"], "kept": ["x"]}), tmp_path / "in" / "b.parquet")
    with pytest.raises(
        ConfigError, match=r"b.parquet: column 'kept' has type string, but int64 in this run.*column_types.kept = \"string\""
    ):
        run(tmp_path, qwen)


def test_an_id_that_no_longer_fits_is_a_reject(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of([1, 2]))
    run(tmp_path, qwen)
    write(tmp_path / "in", "b", [{"id": "x", "text": "c", "kept": 1}])
    summary = run(tmp_path, qwen)
    assert summary.snapshot
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (2, 1)


def test_an_id_that_is_but_a_reject_is_not_what_stops_the_night(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", [{"id": 1, "text": "a", "kept": 1}])
    run(tmp_path, qwen)
    write(tmp_path / "in", "b", [{"id": "x", "text": "b", "kept": "y"}])
    with pytest.raises(ConfigError, match=r"^column_types: 'kept' is int64 .*: row 0: kept is 'y', not int64"):
        run(tmp_path, qwen)


def test_a_column_without_values_takes_any_later_one_as_text(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of([None, None]))
    run(tmp_path, qwen)
    write(tmp_path / "in", "b", rows_of([{"a": 1}], first=2))
    run(tmp_path, qwen)
    assert kept(tmp_path) == {0: None, 1: None, 2: '{"a":1}'}


def test_a_trial_does_not_settle_types(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of([1, 2]))
    write(tmp_path / "in", "b", rows_of([2.5], first=2))
    (tmp_path / "in" / "b.jsonl").rename(tmp_path / "b.jsonl")
    run(tmp_path, qwen, limit=2)
    (tmp_path / "b.jsonl").rename(tmp_path / "in" / "b.jsonl")
    summary = run(tmp_path, qwen)
    assert kept(tmp_path) == {0: 1.0, 1: 2.0, 2: 2.5}
    assert summary.progress.counts.documents == 1, "the trial's vectors serve, though its rows have another type"


@pytest.mark.usefixtures("sample_of_one")
def test_an_aborted_run_leaves_its_types_and_keys(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key files hold hashes in wider types than the first rows tell."""
    write(tmp_path / "in", "a", rows_of(list(range(30))))
    write(tmp_path / "in", "b", rows_of([2.5] * 30, first=30))
    whole_run(config(tmp_path, qwen), lambda progress: None, Recorder(max_shards=1))
    read: list[str] = []
    monkeypatch.setattr(row_types, "widened", lambda *found: pytest.fail("the types were known"))
    monkeypatch.setattr("bulkembed.runs.versions.scan_or_misfits", lambda store, item, *rest: read.append(item.uri))
    summary = run(tmp_path, qwen)
    assert read == []
    assert summary.progress.counts.documents == 45
    assert kept(tmp_path) == {number: float(number) if number < 30 else 2.5 for number in range(60)}


@pytest.mark.usefixtures("sample_of_one")
def test_key_files_in_narrower_types_are_not_used(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "a", rows_of(list(range(30))))
    whole_run(config(tmp_path, qwen), lambda progress: None, Recorder(max_shards=1))
    write(tmp_path / "in", "b", rows_of([2.5], first=30))
    summary = run(tmp_path, qwen)
    assert kept(tmp_path) == {number: float(number) for number in range(30)} | {30: 2.5}
    assert summary.progress.counts.documents == 16
    keys = [path.stem[0] for path in tmp_path.glob("out/_meta/keys/*/*.parquet")]
    assert sorted(keys) == ["a", "b"]
    run(tmp_path, qwen)


@pytest.mark.usefixtures("sample_of_one")
def test_a_large_source_is_read_again_in_tasks(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.runs.lookup.MAX_BYTES_HERE", 0)
    write(tmp_path / "in", "a", rows_of([1, 2]))
    write(tmp_path / "in", "b", rows_of([2.5, {"x": 1}], first=2))
    run(tmp_path, qwen)
    assert kept(tmp_path) == {0: "1", 1: "2", 2: "2.5", 3: '{"x":1}'}
    run(tmp_path, qwen)


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ü"]), inner, max_size=2),
    max_leaves=5,
)


def same(value: Any, back: Any) -> bool:
    """Whether a value came back. A key that is absent is null."""
    if isinstance(value, dict) and isinstance(back, dict):
        return all(same(value.get(key), back.get(key)) for key in {*value, *back})
    if isinstance(value, list) and isinstance(back, list):
        return len(value) == len(back) and all(map(same, value, back))
    return bool(value == back) and isinstance(value, bool) == isinstance(back, bool)


@settings(max_examples=8, deadline=None)
@given(st.lists(JSON, min_size=1, max_size=6))
def test_any_values_come_back_or_are_json_text(tmp_path_factory: pytest.TempPathFactory, qwen: str, values: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for number, row in enumerate(rows_of(values)):
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / f"{number}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MAX_SAMPLED", 1)
        summary = in_one_process(config(folder, qwen))
    summary.require_complete()
    assert summary.snapshot
    found = kept(folder)
    assert len(found) == len(values)
    if summary.snapshot.json_text:
        assert [None if value is None else value if isinstance(value, str) else loaded(value) for value in values] == [
            found[number] if isinstance(value, str) or value is None else loaded_text(found[number]) for number, value in enumerate(values)
        ]
    else:
        assert all(same(value, found[number]) for number, value in enumerate(values))


def loaded(value: Any) -> Any:
    return json.loads(json.dumps(value))


def loaded_text(text: str) -> Any:
    assert orjson.loads(text) is not None
    return json.loads(text)
