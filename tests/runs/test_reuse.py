"""What a night sends to the engine, and whose vectors it carries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.arrow_dataset import open_dataset
from bulkembed.runs import calibration, rewrites
from bulkembed.runs.exchange import StoreExchange
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.nights import complete_run, sorted_rows
from tests.support.runs import Recorder, in_one_process, live_names, problems, read_dataset, simulated

STORE = Store()
Row = dict[str, Any]
CHUNKS: dict[str, Any] = {"long_documents": "chunk", "chunk_tokens": 20, "chunk_overlap": 4, "max_tokens": 1024}


def corpus(count: int = 30) -> list[Row]:
    return [{"id": number, "text": f"text {number}", "lang": "en", "url": f"u{number}"} for number in range(count)]


@pytest.fixture
def cfg(tmp_path: Path, qwen: str) -> RunConfig:
    return simulated(tmp_path / "in", tmp_path / "out", qwen)


def write(cfg: RunConfig, **files: list[Row]) -> None:
    """Makes the source these files alone: Parquet where a name ends in p, else JSON lines."""
    folder = Path(cfg.source_text)
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, rows in files.items():
        if name.endswith("p"):
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=7)
        else:
            write_jsonl(folder / f"{name}.jsonl", rows)


def embedded(cfg: RunConfig) -> int:
    """A run that must succeed and leave a sound dataset: how many documents or windows went to the engine."""
    count = complete_run(cfg)[1]
    assert problems(cfg.output) == []
    return count


def by_id(cfg: RunConfig, column: str = "embedding") -> dict[Any, Any]:
    table = read_dataset(cfg.output)
    return dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))


def data_files(cfg: RunConfig) -> dict[str, int]:
    """When each data file was written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(cfg.output, "data").rglob("*.parquet")}


def require_as_from_scratch(cfg: RunConfig) -> None:
    scratch = cfg.model_copy(update={"output": f"{cfg.output}-from-scratch"})
    in_one_process(scratch).require_complete()
    assert sorted_rows(read_dataset(cfg.output)).equals(sorted_rows(read_dataset(scratch.output)))


def renamed(cfg: RunConfig, rows: list[Row]) -> None:
    write(cfg, x=rows[:20], y=rows[20:])


def touched(cfg: RunConfig, rows: list[Row]) -> None:
    for path in Path(cfg.source_text).iterdir():
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def cut_and_shuffled(cfg: RunConfig, rows: list[Row]) -> None:
    write(cfg, ap=rows[::-3], b=rows[-2::-3], cp=rows[-3::-3])


@pytest.mark.parametrize("rewrite", [renamed, touched, cut_and_shuffled])
def test_the_same_content_in_other_files_changes_no_data_file(cfg: RunConfig, rewrite: Callable[[RunConfig, list[Row]], None]) -> None:
    rows = corpus()
    write(cfg, a=rows[:20], bp=rows[20:])
    first = in_one_process(cfg).snapshot
    names, files = live_names(cfg.output), data_files(cfg)
    rewrite(cfg, rows)
    summary, count = complete_run(cfg)
    assert first is not None and summary.snapshot is not None
    assert count == 0
    assert (live_names(cfg.output), data_files(cfg)) == (names, files)
    assert summary.snapshot.number == 2, "the next run finds the identity of these files"
    assert summary.snapshot.source_identity != first.source_identity
    assert summary.night.added == summary.night.changed == summary.night.deleted == 0
    assert complete_run(cfg)[0].snapshot == summary.snapshot


def test_a_kept_column_that_changed_needs_no_engine(cfg: RunConfig) -> None:
    rows = corpus()
    write(cfg, a=rows[:20], b=rows[20:])
    in_one_process(cfg)
    names, vectors = live_names(cfg.output), by_id(cfg)
    write(cfg, a=[row | {"lang": "de"} if row["id"] == 3 else row for row in rows[:20]], b=rows[20:])
    assert embedded(cfg) == 0
    assert by_id(cfg) == vectors
    assert by_id(cfg, "lang") == {row["id"]: "de" if row["id"] == 3 else "en" for row in rows}
    assert len(set(live_names(cfg.output)) - set(names)) == 1, "the file of that row alone is written again"


@pytest.mark.parametrize("in_chunks", [False, True])
def test_many_values_go_to_the_files_by_way_of_the_exchange(
    cfg: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_chunks: bool
) -> None:
    """As where a kept column of all documents changes: no process holds the values of all."""
    if in_chunks:
        cfg = simulated(cfg.source_text, cfg.output, cfg.model, **CHUNKS)
    rows = [row | {"text": f"{row['text']} " * 30} if in_chunks else row for row in corpus()]
    write(cfg, a=rows[:12], b=rows[12:19], cp=rows[19:])
    in_one_process(cfg)
    vectors = by_id(cfg)
    cut_and_shuffled(cfg, [row | {"lang": f"de{row['id']}"} for row in rows])
    held: list[int] = []
    read_tables = StoreExchange.read_tables

    def counted(exchange: StoreExchange, *place: Any) -> pa.Table:
        values = read_tables(exchange, *place)
        held.append(values.num_rows)
        return values

    monkeypatch.setattr(StoreExchange, "read_tables", counted)
    monkeypatch.setattr(rewrites, "VALUE_ROWS", 13)
    assert embedded(cfg) == 0
    assert (sum(held), len(held) > 1, max(held) <= 13) == (30, True, True)
    assert by_id(cfg) == vectors
    assert by_id(cfg, "lang") == {row["id"]: f"de{row['id']}" for row in rows}
    assert list(tmp_path.glob("out/_meta/exchange/*")) == []
    require_as_from_scratch(cfg)


def test_ids_that_swap_their_texts_swap_their_vectors(cfg: RunConfig) -> None:
    rows = corpus()
    write(cfg, a=rows[:20], b=rows[20:])
    in_one_process(cfg)
    before = by_id(cfg)
    rows[3]["text"], rows[25]["text"] = rows[25]["text"], rows[3]["text"]
    write(cfg, a=rows[:20], b=rows[20:])
    assert embedded(cfg) == 0
    assert by_id(cfg) == before | {3: before[25], 25: before[3]}


def test_a_text_moves_to_another_id_with_its_vector(cfg: RunConfig) -> None:
    rows = corpus()
    write(cfg, a=rows)
    in_one_process(cfg)
    before = by_id(cfg)
    rows[3]["id"], rows[4]["text"] = 99, "new"
    write(cfg, a=[*rows, rows[5] | {"id": 77}])
    assert embedded(cfg) == 1
    after = by_id(cfg)
    assert (after[99], after[77]) == (before[3], before[5])
    assert after.keys() == before.keys() - {3} | {99, 77}
    require_as_from_scratch(cfg)


@pytest.mark.parametrize(("dedupe", "expected"), [(True, 30), (False, 50)])
def test_a_text_of_several_documents_is_embedded_once(cfg: RunConfig, dedupe: bool, expected: int) -> None:
    rows = corpus()
    twins = [row | {"id": 100 + row["id"]} for row in rows[:20]]
    write(cfg, a=rows, b=twins)
    summary, count = complete_run(cfg.model_copy(update={"dedupe": dedupe}))
    assert (count, summary.night.embedded, summary.night.duplicates) == (expected, expected, 50 - expected)
    vectors = by_id(cfg)
    assert len(vectors) == 50
    assert all(vectors[100 + number] == vectors[number] for number in range(20))
    assert problems(cfg.output) == []
    write(cfg, a=rows, b=[*twins, rows[7] | {"id": 777}])
    assert embedded(cfg.model_copy(update={"dedupe": dedupe})) == 0, "a vector that is there is never made again"


@pytest.mark.parametrize("published", [0, 10])
def test_vectors_of_an_aborted_run_are_found_in_a_source_that_was_rewritten(cfg: RunConfig, published: int) -> None:
    rows = corpus(60)
    if published:
        write(cfg, a=rows[:published])
        in_one_process(cfg)
    write(cfg, a=rows[:30], b=rows[30:])
    aborted = run(cfg, lambda progress: None, Recorder(1))
    done = aborted.progress.counts.documents
    assert aborted.snapshot is None
    assert done >= 15
    write(cfg, xp=rows[::-2], y=rows[::2])
    summary, count = complete_run(cfg)
    assert (count, summary.night.adopted) == (60 - published - done, done)
    require_as_from_scratch(cfg)
    assert problems(cfg.output) == []


def test_vectors_of_an_aborted_run_are_found_after_another_snapshot_and_many_nights(cfg: RunConfig) -> None:
    """The run had the parent of what is the parent now. The files of older nights, which no snapshot lists any more, are left alone."""
    rows = corpus(60)
    for night in range(3):
        rows[night]["text"] = f"of night {night}"
        write(cfg, a=rows[:30], b=rows[30:])
        embedded(cfg)
    new = [{"id": 100 + number, "text": f"new {number}", "lang": "en", "url": ""} for number in range(40)]
    write(cfg, a=rows[:30], b=rows[30:], c=new)
    assert run(cfg, lambda progress: None, Recorder(1)).snapshot is None
    write(cfg, a=rows[:29], b=rows[30:])
    assert embedded(cfg) == 0
    write(cfg, a=rows[:29], b=rows[30:], c=new)
    assert embedded(cfg) == 20


def test_a_damaged_file_of_the_last_night_is_not_taken_for_what_an_aborted_run_left(cfg: RunConfig) -> None:
    """Both are named after the parent's parent."""
    rows = corpus(40)
    write(cfg, a=rows[:30])
    embedded(cfg)
    write(cfg, a=rows[:30], b=rows[30:])
    assert embedded(cfg) == 10
    (file,) = Path(cfg.output).glob("data/*/*-e00000001-*.parquet")
    file.write_bytes(file.read_bytes() + b"more")
    assert embedded(cfg) == 10
    require_as_from_scratch(cfg)


@pytest.mark.parametrize("kept", [("lang", "url"), ("url",), ()])
def test_other_kept_columns_embed_nothing(cfg: RunConfig, kept: tuple[str, ...]) -> None:
    rows = corpus()
    write(cfg, a=rows[:20], bp=rows[20:])
    in_one_process(cfg)
    other = cfg.model_copy(update={"keep_columns": kept})
    summary, count = complete_run(other)
    assert (count, summary.night.reused) == (0, 30)
    assert set(read_dataset(cfg.output).column_names) >= {"lang"}, "it is a line of its own, and not current"
    assert summary.snapshot is not None and summary.snapshot.documents == 30
    write(cfg, a=rows[:20], bp=[*rows[20:], rows[0] | {"id": 99, "text": "new"}])
    assert complete_run(other)[1] == 1
    assert complete_run(cfg)[1] == 1, "each line has vectors of its own"


@pytest.mark.parametrize(("derive", "expected"), [(True, 0), (False, 30)])
def test_fewer_dims_are_cut_where_that_is_asked_for(cfg: RunConfig, derive: bool, expected: int) -> None:
    write(cfg, a=corpus())
    in_one_process(cfg)
    short = cfg.model_copy(update={"dims": (32,), "derive": derive})
    summary, count = complete_run(short)
    assert (count, summary.night.reused) == (expected, 30 - expected)
    assert summary.snapshot is not None
    cut = open_dataset(STORE, cfg.output, summary.snapshot.number).to_table()
    full = np.array([by_id(cfg)[each][:32] for each in cut["id"].to_pylist()])
    np.testing.assert_allclose(cut["embedding"].to_pylist(), full / np.linalg.norm(full, axis=1, keepdims=True), atol=2e-7)


def test_a_night_of_int8_vectors_keeps_their_ranges_and_embeds_what_is_new(cfg: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MIN_VECTORS", 30)  # the ranges of this corpus are final
    int8 = simulated(cfg.source_text, cfg.output, cfg.model, vectors="64:int8,32:float16")
    rows = corpus()
    write(int8, a=rows)
    in_one_process(int8)
    before = by_id(int8)
    rows[3]["lang"] = "de"
    rows[4]["text"], rows[5]["text"] = rows[5]["text"], rows[4]["text"]
    write(int8, x=rows[15:], y=[*rows[:15], {"id": 99, "text": "new", "lang": "en"}])
    assert embedded(int8) == 1
    after = by_id(int8)
    assert len(after.pop(99)) == 64
    assert after == before | {4: before[5], 5: before[4]}
    assert len(list(Path(cfg.output, "data").iterdir())) == 1, "other ranges would have a folder of their own"


def test_a_night_of_documents_in_chunks_carries_all_windows_of_a_document(cfg: RunConfig) -> None:
    chunked = simulated(cfg.source_text, cfg.output, cfg.model, **CHUNKS)
    rows = [row | {"text": " ".join(f"word {row['id']}" for _ in range(20))} for row in corpus(9)]
    write(chunked, a=rows)
    windows = embedded(chunked)
    assert windows == read_dataset(cfg.output).num_rows >= 3 * 9
    rows[1]["lang"] = "de"
    rows[2]["text"], rows[3]["text"] = rows[3]["text"], rows[2]["text"]
    rows[4]["text"] = "short now"
    write(chunked, x=rows[5:], y=[*rows[:5], rows[6] | {"id": 99}])
    assert embedded(chunked) == 1
    require_as_from_scratch(chunked)
