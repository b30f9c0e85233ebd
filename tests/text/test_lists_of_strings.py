"""Rows whose text is a list of strings: each string is a chunk, in whole runs with the simulated engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed import row_keys
from bulkembed.config.run_config import RunConfig
from bulkembed.errors import SourceError
from bulkembed.text.tokenizer import Tokenizer
from tests.support.corpora import write_jsonl
from tests.support.nights import complete_run, sorted_rows
from tests.support.runs import in_one_process, problems, read_dataset, simulated
from tests.text.test_empty_texts import complete_run as run_at_full_width

Row = dict[str, Any]
LONG = "A sentence that stands here. Another one follows it! " * 12


def config(tmp_path: Path, model: str, policy: str = "chunk", **more: Any) -> RunConfig:
    (tmp_path / "in").mkdir(exist_ok=True)
    return simulated(tmp_path / "in", tmp_path / "out", model, long_documents=policy, chunk_tokens=32, text_columns=["parts"], **more)


def rows(*lists: Any) -> list[Row]:
    return [{"id": number, "parts": parts, "lang": "x"} for number, parts in enumerate(lists)]


def test_each_string_is_a_chunk_of_its_row(tmp_path: Path, qwen: str) -> None:
    cfg = config(tmp_path, qwen)
    write_jsonl(
        tmp_path / "in" / "a.jsonl", rows(["one two", "three"], ["only"], "a plain text", [], None, ["", None, "four", " ", "five"])
    )
    summary, embedded = complete_run(cfg)
    found = read_dataset(cfg.output).to_pylist()
    spans = [(row["id"], row["chunk_index"], row["char_start"], row["char_end"]) for row in found]
    assert spans == [(0, 0, 0, 7), (0, 1, 7, 12), (1, 0, 0, 4), (2, 0, 0, 12), (5, 0, 0, 4), (5, 1, 4, 8)]
    assert embedded == len(found)
    strings = ["one two", "three", "only", "a plain text", "four", "five"]
    expected = row_keys.binary_of(row_keys.content_hashes(strings)).to_pylist()
    assert [row["content_hash"] for row in found] == expected
    tokenizer = Tokenizer(f"{qwen}/tokenizer.json", 64, None)
    assert [row["n_tokens"] for row in found] == tokenizer.encode(strings).lengths.tolist()
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rows, summary.snapshot.rejects) == (4, 6, 2)
    (rejects,) = (tmp_path / "out/_meta/rejects").glob("*/*.parquet")
    assert pq.read_table(rejects, columns=["id", "reason"]).to_pylist() == [
        {"id": 3, "reason": "empty_text"},
        {"id": 4, "reason": "null_text"},
    ]
    assert problems(cfg.output) == []


def test_a_long_string_is_cut_into_windows_of_its_own(tmp_path: Path, qwen: str) -> None:
    cfg = config(tmp_path, qwen)
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(["short", LONG, "end"]))
    complete_run(cfg)
    found = read_dataset(cfg.output).to_pylist()
    assert [row["chunk_index"] for row in found] == list(range(len(found)))
    assert max(row["n_tokens"] for row in found) <= 32
    whole = f"short{LONG}end"
    pieces = [whole[row["char_start"] : row["char_end"]] for row in found]
    assert (pieces[0], "".join(pieces[1:-1]), pieces[-1]) == ("short", LONG, "end")
    assert len(pieces) > 4


def test_mean_is_one_row_of_all_strings(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(["one two", "three"], ["only"]))
    in_one_process(config(tmp_path, qwen))
    chunks = read_dataset(tmp_path / "out").to_pylist()
    in_one_process(config(tmp_path, qwen, "mean").model_copy(update={"output": str(tmp_path / "mean")}))
    means = read_dataset(tmp_path / "mean").to_pylist()
    assert [row["id"] for row in means] == [0, 1]
    for row in means:
        mine = [chunk for chunk in chunks if chunk["id"] == row["id"]]
        # The end token is no token of the text.
        total = sum(np.array(chunk["embedding"]) * (chunk["n_tokens"] - 1) for chunk in mine)
        np.testing.assert_allclose(row["embedding"], total / np.linalg.norm(total), atol=1e-5)
    assert means[0]["content_hash"] == chunks[0]["document_hash"]


def test_strings_without_a_token_are_no_chunks(tmp_path: Path, minilm: str) -> None:
    cfg = config(tmp_path, minilm)
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(["\u200b", "one", "\x00", "two"], ["\u200b", "\u00ad"], ["\u200b"]))
    run_at_full_width(cfg)
    found = read_dataset(cfg.output).to_pylist()
    assert [(row["id"], row["chunk_index"], row["char_start"], row["char_end"]) for row in found] == [(0, 0, 1, 4), (0, 1, 5, 8)]
    assert problems(cfg.output) == []


def moved(lists: list[Any]) -> None:
    lists.insert(0, lists.pop())


def cut_elsewhere(lists: list[Any]) -> None:
    lists[0] = ["a0 b", "0 c0"]


def joined(lists: list[Any]) -> None:
    lists[0] = "a0 b0 c0"


@pytest.mark.parametrize(("change", "embedded"), [(moved, 0), (cut_elsewhere, 2), (joined, 1)])
def test_a_night_embeds_lists_that_are_cut_otherwise(tmp_path: Path, qwen: str, change: Callable[[list[Any]], None], embedded: int) -> None:
    """Two lists of the same characters are two documents."""
    lists: list[Any] = [[f"a{number} ", f"b{number} c{number}"] for number in range(5)]
    cfg = config(tmp_path, qwen)
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(*lists))
    assert complete_run(cfg)[1] == 10
    change(lists)
    write_jsonl(tmp_path / "in" / "a.jsonl", rows(*lists))
    assert complete_run(cfg)[1] == embedded
    scratch = cfg.model_copy(update={"output": f"{cfg.output}-from-scratch"})
    in_one_process(scratch).require_complete()
    assert sorted_rows(read_dataset(cfg.output)).equals(sorted_rows(read_dataset(scratch.output)))
    assert problems(cfg.output) == []


@given(st.lists(st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3), max_size=6, unique_by=tuple))
def test_no_two_lists_have_one_hash(lists: list[list[str]]) -> None:
    ends = {number: tuple(np.cumsum(list(map(len, strings))).tolist()) for number, strings in enumerate(lists) if len(strings) > 1}
    hashes = row_keys.document_hashes(["".join(strings) for strings in lists], ends)
    assert len({row.tobytes() for row in hashes}) == len(lists)
    single = [number for number, strings in enumerate(lists) if len(strings) == 1]
    np.testing.assert_array_equal(hashes[single], row_keys.content_hashes(lists[number][0] for number in single))


def as_polars(path: Path, table: pa.Table) -> None:
    import polars

    polars.DataFrame(table).write_parquet(path)


def as_duckdb(path: Path, table: pa.Table) -> None:
    import duckdb

    duckdb.from_arrow(table).write_parquet(str(path))


def as_fixed_lists(path: Path, table: pa.Table) -> None:
    kinds = {"parts": pa.list_(pa.string(), 2)}
    pq.write_table(table.cast(pa.schema([field.with_type(kinds.get(field.name, field.type)) for field in table.schema])), path)


def as_views(path: Path, table: pa.Table) -> None:
    kinds = {"parts": pa.large_list(pa.string_view())}
    pq.write_table(table.cast(pa.schema([field.with_type(kinds.get(field.name, field.type)) for field in table.schema])), path)


def as_dictionaries(path: Path, table: pa.Table) -> None:
    parts = table["parts"].combine_chunks()
    encoded = pa.ListArray.from_arrays(parts.offsets, parts.flatten().dictionary_encode(), mask=parts.is_null())
    pq.write_table(table.set_column(1, "parts", encoded), path)


@pytest.mark.parametrize("write", [as_polars, as_duckdb, as_fixed_lists, as_views, as_dictionaries])
def test_lists_as_other_tools_write_them(tmp_path: Path, qwen: str, write: Callable[[Path, pa.Table], None]) -> None:
    cfg = config(tmp_path, qwen)
    write(tmp_path / "in" / "a.parquet", pa.table({"id": [1, 2, 3], "parts": [["a", "b"], None, [None, "caf\xe9"]], "lang": ["x"] * 3}))
    complete_run(cfg)
    found = read_dataset(cfg.output)
    assert found.select(["id", "chunk_index", "char_end"]).to_pylist() == [
        {"id": 1, "chunk_index": 0, "char_end": 1},
        {"id": 1, "chunk_index": 1, "char_end": 2},
        {"id": 3, "chunk_index": 0, "char_end": 4},
    ]
    assert problems(cfg.output) == []


def test_a_list_with_bytes_that_are_no_text_rejects_its_row(tmp_path: Path, qwen: str) -> None:
    cfg = config(tmp_path, qwen)
    values = pa.array([b"fine", b"caf\xe9", b"good"], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 3, values.buffers())  # as Spark writes it
    table = pa.table({"id": [1, 2], "parts": pa.ListArray.from_arrays([0, 2, 3], bad), "lang": ["x", "x"]})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    complete_run(cfg)
    assert read_dataset(cfg.output)["id"].to_pylist() == [2]


@pytest.mark.parametrize("policy", ["truncate", "reject"])
def test_lists_need_a_policy_that_makes_chunks(tmp_path: Path, qwen: str, policy: str) -> None:
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, long_documents=policy, text_columns=["parts"])
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1], "parts": [["a", "b"]], "lang": ["x"]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(SourceError, match=r"'parts' has type list<.*, not text; long_documents = \"chunk\" makes a row of each string"):
        in_one_process(cfg)
