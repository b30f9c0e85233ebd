"""JSON lines as the world writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.formats import json_lines, lax_json
from tests.support.reading import config, read_settled


def read_lines(folder: Path, *lines: bytes, **changes: Any) -> tuple[list[dict[str, Any]], list[str], list[tuple[int, str, str]]]:
    """Rows, texts and rejects of a file of these lines."""
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    (found,) = read_settled(folder / "a.jsonl", config(**({"keep_columns": ["kept"]} | changes)))
    rejects = [(row["row"], row["reason"], row["detail"]) for row in found.rejects.to_pylist()]
    return found.rows.to_pylist(), found.texts, rejects


def test_bytes_that_are_no_utf8_matter_where_they_stand(tmp_path: Path) -> None:
    rows, texts, rejects = read_lines(
        tmp_path,
        b'{"id": 1, "text": "a", "kept": "caf\xe9"}',
        b'{"id": "x\xe9", "text": "b", "kept": "k"}',
        b'{"id": 3, "text": "c\xe9", "kept": "k"}',
        b'{"id": 4, "text": "d", "kept": "k", "other": "\xff", "n": NaN}',
        b'{"id": 5, "text": "e", "kept": {"\xe9": ["\xe9"]}}',
    )
    assert [row["id"] for row in rows] == [1, 4, 5]
    assert [row["kept"] for row in rows] == ["caf\ufffd", "k", '{"\ufffd":["\ufffd"]}']
    assert texts == ["a", "d", "e"]
    assert [(row, reason) for row, reason, _ in rejects] == [(1, "undecodable"), (2, "undecodable")]
    assert "id is 'x\ufffd', not UTF-8" in rejects[0][2]


def test_half_of_a_surrogate_pair_is_a_replacement_character(tmp_path: Path) -> None:
    rows, texts, rejects = read_lines(
        tmp_path,
        rb'{"id": "a", "text": "\ud83e\uddee \ud800", "kept": ["\udc00"]}',
        rb'{"id": "\ud800", "text": "b", "kept": null}',
    )
    assert rows == [{"id": "a", "kept": ["\ufffd"]}]
    assert texts == ["🧮 \ufffd"]
    assert [(row, reason) for row, reason, _ in rejects] == [(1, "undecodable")], "another id would be another document"


def test_numbers_of_any_length_are_exact(tmp_path: Path) -> None:
    lines = [b'{"id": 123456789012345678901, "text": "a", "kept": 1}', b'{"id": 123456789012345678902, "text": "b", "kept": Infinity}']
    rows, _, rejects = read_lines(tmp_path, *lines)
    assert rows == [{"id": "123456789012345678901", "kept": 1.0}, {"id": "123456789012345678902", "kept": float("inf")}]
    assert rejects == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b'{"id": 1, "text": "a", "kept": 1, "kept": 2}', "kept"),
        (b'{"id": 1, "n": {"id": 3}, "text": "a", "id" : 2}', "id"),
        (b'{"id": 1, "text": "a", "text": "b", "x": NaN}', "text"),
        (b'{"id": 1, "text": "a", "kept": 1, "kept": null}', "kept"),
        (b'{"id": 1, "text": "a", "id": 1.5, "kept": "id"}', "id"),
    ],
)
def test_two_values_of_one_name_are_a_reject(tmp_path: Path, line: bytes, name: str) -> None:
    rows, _, rejects = read_lines(tmp_path, line, b'{"id": 9, "text": "z", "kept": 1}')
    assert [row["id"] for row in rows] == [9]
    assert rejects == [(0, "not_json", f"it has 2 different values of {name!r}")]


def test_two_values_of_a_column_that_a_path_begins_with_are_a_reject(tmp_path: Path) -> None:
    lines = [b'{"id": 1, "doc": {"t": "a"}, "doc": {"t": "b"}}', b'{"id": 2, "doc": {"t": "c"}, "other": {"doc": 1}, "doc": {"t": "c"}}']
    rows, texts, rejects = read_lines(tmp_path, *lines, keep_columns=[], text_columns=["doc.t"])
    assert (rows, texts) == ([{"id": 2}], ["c"])
    assert rejects == [(0, "not_json", "it has 2 different values of 'doc'")]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1, "text": "a", "kept": 1, "kept": 1}',
        rb'{"id": 1, "text": "say \"id\": or \"kept\": twice", "kept": "\"id\":"}',
        b'{"id": 1, "n": {"id": 2, "kept": [{"kept": 1}]}, "text": "id", "kept": "id"}',
        b'{"id": 1, "text": "a", "kept": 5, "other": 1, "other": 2}',
    ],
)
def test_a_name_that_comes_twice_elsewhere_is_no_matter(tmp_path: Path, line: bytes) -> None:
    rows, _, rejects = read_lines(tmp_path, line)
    assert (len(rows), rejects) == (1, [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["id", "text", "kept", "x"]), VALUES))
def test_every_object_of_python_is_parsed(row: dict[str, Any]) -> None:
    """Also with NaN, Infinity and half surrogate pairs; numbers keep their digits."""
    line = json.dumps(row).encode()
    parsed = json_lines.parse_lines([(line, len(line))], ["id", "text", "kept"])
    assert parsed.reasons == {}
    assert parsed.values[0].keys() == row.keys()
    for name, value in row.items():
        back = parsed.values[0][name]
        if isinstance(value, str):
            assert back == "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in value)
        elif isinstance(value, int) and not isinstance(value, bool) and parsed.lax:
            assert repr(back) == repr(value)
    exact = lax_json.parse(line)
    assert exact.keys() == row.keys()
