"""Ids and kept columns come back as they are in the source, or their row is rejected: JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import ConfigError, SourceError
from bulkembed.records import Documents
from bulkembed.source import json_columns
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store
from tests.support.reading import carried_of, config, read

NAN = float("nan")


def kept(folder: Path, *values: str, **changes: Any) -> Documents:
    """A file of a row for each of these JSON values, as read; the type is sampled from the first row alone."""
    lines = (f'{{"id": {number}, "text": "t", "kept": {value}}}\n' for number, value in enumerate(values))
    (folder / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    (found,) = read(folder / "a.jsonl", config(keep_columns=["kept"]) if not changes else config(keep_columns=["kept"], **changes))
    return found


@pytest.fixture
def sample_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "SAMPLE_LINES", 1)


@pytest.mark.usefixtures("sample_of_one")
@pytest.mark.parametrize(
    ("first", "later", "back"),
    [
        ("1", "3.0", 3),
        ("1", "18446744073709551615", None),
        ("18446744073709551615", "7", 7),
        ("1.5", "7", 7),
        ("1.5", "0.10000000000000000555", 0.1),
        ("1.5", "5e-324", 5e-324),
        ("1.5", "NaN", NAN),
        ('{"a": 1}', '{"a": 1, "b": null}', {"a": 1}),
        ('{"a": 1, "b": 2}', '{"b": 2}', {"a": None, "b": 2}),
        ('{"a": 1}', "{}", {"a": None}),
        ("[1]", "[]", []),
        ('[{"a": {"b": 1}}]', '[null, {"a": null}]', [None, {"a": None}]),
    ],
)
def test_a_value_that_comes_back_the_same_is_taken(tmp_path: Path, first: str, later: str, back: Any) -> None:
    found = kept(tmp_path, first, later)
    if back is None:
        assert found.rejects["reason"].to_pylist() == ["wrong_type"]
        return
    assert found.rejects.num_rows == 0
    (value,) = found.rows["kept"].to_pylist()[1:]
    assert value == back or (math.isnan(value) and math.isnan(back))


@pytest.mark.usefixtures("sample_of_one")
@pytest.mark.parametrize(
    ("first", "later", "detail"),
    [
        ("1", "2.5", 'kept is 2.5, not int64; column_types.kept = "double"'),
        ("1", "18446744073709551617", 'kept is 18446744073709551617, not int64; column_types.kept = "string"'),
        ("1", "-9223372036854775809", "kept is -9223372036854775809"),
        ("1", "true", "kept is True"),
        ("1", '"7"', "kept is '7'"),
        ("true", "1", "kept is 1"),
        ("1.5", "true", "kept is True"),
        ("1.5", "9007199254740993", "kept is 9007199254740993, not double"),
        ("1.5", "0.1000000000000000000001", "kept is 0.1000000000000000000001, not double"),
        ("1.5", "1e400", "kept is 1e400"),
        ("1.5", "1e-400", "kept is 1e-400"),
        ('"a"', "7", 'kept is 7, not string; column_types.kept = "string" takes any value, as text'),
        ('"a"', '{"b": 1}', "kept is {'b': 1}, not string"),
        ('{"a": 1}', '{"a": 1, "lang": "de"}', "kept.lang is 'de', not struct<a: int64>"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1.5}}', "kept.a.b is 1.5"),
        ('[{"a": 1}]', '[{"a": 1}, {"a": 1, "b": [2]}]', r"kept[1].b is [2]"),
        ("[1]", "[1, 2.5]", "kept[1] is 2.5"),
        ("[1.5]", "[18446744073709551617]", "kept is [18446744073709551617], not list<item: double>"),
    ],
)
def test_a_value_that_does_not_come_back_is_rejected(tmp_path: Path, first: str, later: str, detail: str) -> None:
    found = kept(tmp_path, first, later)
    assert found.rows["id"].to_pylist() == [0]
    (reject,) = found.rejects.to_pylist()
    assert (reject["id"], reject["reason"]) == (1, "wrong_type")
    assert detail in reject["detail"]


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        ("float", [1, 2]),
        ("date64[ms]", [4]),
        ("int8", [2]),
        ("uint64", [1, 4, 5]),
        ("timestamp[us]", [1, 2, 4, 5]),
        ("timestamp[s]", [1, 2, 4]),  # Parquet has milliseconds
    ],
)
def test_a_type_that_was_asked_for_changes_no_value(tmp_path: Path, kind: str, taken: list[int]) -> None:
    found = kept(tmp_path, "0.1", "300", "-1", "1e300", "86400000", "4611686018427387904", column_types={"kept": kind})
    assert found.rows["id"].to_pylist() == taken
    pq.write_table(found.rows, tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["kept"].cast(found.rows["kept"].type).equals(found.rows["kept"])


TEXTS = {
    "7": "7",
    "2.5": "2.5",
    "1.50": "1.5",
    "true": "true",
    "null": None,
    '"x"': "x",
    '{"a": 18446744073709551617}': '{"a":18446744073709551617}',
    "18446744073709551617": "18446744073709551617",
    "1e400": "1e400",
    "NaN": "NaN",
    "0.1000000000000000000001": "0.1000000000000000000001",
}


@pytest.mark.parametrize("order", [1, -1])
def test_a_text_column_takes_any_value_as_its_json(tmp_path: Path, order: int) -> None:
    """Where it is asked for, and where the first rows hold several kinds of values."""
    values = list(TEXTS)[::order]
    for changes in ({"column_types": {"kept": "string"}}, {}):
        found = kept(tmp_path, *values, **changes)
        assert found.rejects.num_rows == 0
        assert found.rows["kept"].to_pylist() == [TEXTS[value] for value in values]


def test_ids_of_many_digits_stay_apart(tmp_path: Path) -> None:
    ids = ["18446744073709551617", "18446744073709551618", "100.25", "100.75", "0.12345678901234567", "0.12345678901234568"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": {each}, "text": "t"}}\n' for each in ids))
    (found,) = read(tmp_path / "a.jsonl", config(column_types={"id": "string"}))
    assert found.rows["id"].to_pylist() == ids
    assert found.repeated_ids == 0


def test_a_number_and_its_text_are_a_repeated_id(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "text": "t"}\n{"id": "7", "text": "t"}\n')
    (found,) = read(tmp_path / "a.jsonl", config())
    assert (found.rows["id"].to_pylist(), found.repeated_ids) == (["7", "7"], 1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5"], pa.float64()),
        (["9007199254740993", "2.5"], pa.string()),
        (["1", "18446744073709551615"], pa.uint64()),
        (["-1", "18446744073709551615"], pa.string()),
        (["1", '"a"'], pa.string()),
        (['{"a": 1}', '{"a": 2.5, "b": null}'], pa.struct([("a", pa.float64()), ("b", pa.string())])),
        (["[]", "[[true]]"], pa.list_(pa.list_(pa.bool_()))),
        (["[]"], pa.list_(pa.string())),
        ([("[" * 40) + ("]" * 40)], pa.string()),
        (["null"], pa.string()),
    ],
)
def test_the_first_rows_set_a_type_that_holds_them_all(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    found = kept(tmp_path, *values)
    assert found.rows.schema.field("kept").type == kind
    assert found.rejects.num_rows == 0


@pytest.mark.usefixtures("sample_of_one")
def test_a_column_that_the_first_rows_lack_is_null_in_them(tmp_path: Path) -> None:
    rows = ['{"text": "t"}', '{"id": 1, "text": "a"}', '{"id": 2, "text": "b", "gr\\u00f6\\u00dfe": 5}', '{"id": 3}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (found,) = read(tmp_path / "a.jsonl", config(keep_columns=["größe"]))
    assert found.rows.to_pylist() == [{"id": 1, "größe": None}, {"id": 2, "größe": 5}]
    assert found.rejects["reason"].to_pylist() == ["null_id", "null_text"]


def test_a_column_that_only_a_later_object_has_takes_its_type(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "t"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2, "text": "t", "n": 5}\n')
    parts = read(tmp_path, config(keep_columns=["n"]))
    assert [row for part in parts for row in part.rows.to_pylist()] == [{"id": 1, "n": None}, {"id": 2, "n": 5}]


@pytest.mark.parametrize("changes", [{"id_column": "key"}, {"text_columns": ["body"]}, {"keep_columns": ["lag"]}])
def test_a_column_that_no_row_has_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "\\"key\\" \\"body\\"", "lang": "de"}\n')
    with pytest.raises(SourceError, match=r"no column '(key|body|lag)'; its columns are id, text, lang"):
        read(tmp_path / "a.jsonl", config(**changes))


@pytest.mark.parametrize("value", ["{}", '{"a":{}}', '[{"a":[{}]}]'])
def test_a_struct_without_fields_is_json_text(tmp_path: Path, value: str) -> None:
    """Parquet has no such type."""
    for changes in ({}, {"column_types": {"kept": "string"}}):
        assert kept(tmp_path, value, "null", **changes).rows["kept"].to_pylist() == [value, None]
    assert kept(tmp_path, "{}", '{"a": 1}').rows["kept"].to_pylist() == [{"a": None}, {"a": 1}]


@pytest.mark.parametrize(("name", "kind"), [("lang", "string"), ("kept", "month_day_nano_interval"), ("text", "string")])
def test_a_type_that_cannot_be_had_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"column_types: '(lang|text)' is neither|'kept' has type month_day_nano"):
        kept(tmp_path, "1", column_types={name: kind})


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, mark: bytes) -> None:
    rows = b"".join(b'{"id": %d, "text": "t"}\n' % number for number in range(5))
    (tmp_path / "a.jsonl").write_bytes(mark + rows + mark + rows)
    parts = read(tmp_path / "a.jsonl", config(), 2)
    assert [row for part in parts for row in part.rows["id"].to_pylist()] == [0, 1, 2, 3, 4] * 2
    (tmp_path / "a.jsonl").write_bytes(mark)
    objects = source_objects(Store(), str(tmp_path))
    with pytest.raises(SourceError, match="hold no rows"):
        carried_of(objects, config())


def test_nan_in_a_field_that_is_not_read_is_no_matter(tmp_path: Path) -> None:
    rows = [
        '{"id": 1, "text": "\\ud83e\\uddee", "score": NaN}',
        '{"id": 2, "text": "\\ud800", "score": NaN}',
        '{"id": 3, "text": NaN}',
        "NaN",
    ]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, '{"id": -Infinity, "text": "x"}']))
    (found,) = read(tmp_path / "a.jsonl", config(column_types={"id": "int64"}))
    assert found.texts == ["🧮", "\ufffd"]
    assert found.rejects["reason"].to_pylist() == ["not_text", "not_json", "wrong_type"]


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ü"]), inner, min_size=1, max_size=2),
    max_leaves=5,
)


def same(value: Any, back: Any, text: bool) -> bool:
    """Whether a value came back: a key that is absent is null, and a text column holds JSON."""
    if text and not isinstance(value, str) and value is not None:
        return bool(json.loads(back) == value)
    if isinstance(value, dict) and isinstance(back, dict):
        return all(same(value.get(key), back.get(key), text=False) for key in {*value, *back})
    if isinstance(value, list) and isinstance(back, list):
        return len(value) == len(back) and all(same(*pair, text=False) for pair in zip(value, back, strict=True))
    return bool(value == back) and isinstance(value, bool) == isinstance(back, bool)


@given(st.lists(JSON, min_size=1, max_size=8), st.integers(1, 8))
def test_any_value_comes_back_or_its_row_is_rejected(tmp_path_factory: pytest.TempPathFactory, values: list[Any], sampled: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_columns, "SAMPLE_LINES", sampled)
        found = kept(folder, *map(json.dumps, values))
    rejected = {row["row"]: row["reason"] for row in found.rejects.to_pylist()}
    back = dict(zip(found.rows["id"].to_pylist(), found.rows["kept"].to_pylist(), strict=True))
    assert sorted([*rejected, *back]) == list(range(len(values)))
    assert set(rejected.values()) <= {"wrong_type"}
    field = found.rows.schema.field("kept")
    assert all(same(values[number], value, bool(field.metadata)) for number, value in back.items())
    if field.metadata:
        assert not rejected


@given(st.lists(SCALARS, min_size=1, max_size=8))
def test_any_id_comes_back_or_its_row_is_rejected(tmp_path_factory: pytest.TempPathFactory, ids: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "ids.jsonl"
    path.write_text("".join(json.dumps({"id": each, "text": "t"}) + "\n" for each in ids), encoding="utf-8")
    (found,) = read(path, config())
    rejected = {row["row"]: row["reason"] for row in found.rejects.to_pylist()}
    text = bool(found.rows.schema.field("id").metadata)
    expected = [each for number, each in enumerate(ids) if number not in rejected]
    assert all(same(*pair, text) for pair in zip(expected, found.rows["id"].to_pylist(), strict=True))
    assert all(reason == ("null_id" if ids[row] is None else "wrong_type") for row, reason in rejected.items())
