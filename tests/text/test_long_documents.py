"""The policies for long documents, in whole runs with the simulated engine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as PlainTokenizer

from bulkembed import schema
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.inspection import verify as verify_module
from bulkembed.inspection.verify import verify
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import run
from bulkembed.runs.stages import give_up, prepare, run_shard
from bulkembed.shards import FileName, Shard
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer
from scripts.samples.twin_files import WEIGHTS_OF_NOTHING, describe
from scripts.samples.twins import TWINS
from tests.support.corpora import write_jsonl
from tests.support.reading import shards_of
from tests.support.runs import Recorder, in_one_process, read_dataset, simulated

LONG = (
    "The first sentence stands here. Another one follows it! "
    "\u691c\u7d22\u306f\u901f\u3044\u3002 \U0001f9d1\u200d\U0001f680 flies.\n\nA paragraph. "
) * 12
TEXTS = ["short", LONG, "", "also short", LONG[:-100] + "other end"]


def corpus(folder: Path) -> None:
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [{"id": f"d{number}", "text": text, "lang": "xx"} for number, text in enumerate(TEXTS)])


def config(tmp_path: Path, qwen: str, policy: str, output: str = "out", **more: Any) -> Any:
    return simulated(tmp_path / "in", tmp_path / output, qwen, long_documents=policy, **more)


def hash_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def problems(output: Path) -> list[str]:
    return [problem.text for problem in verify(Store(), *newest_dataset(Store(), str(output)))]


def test_chunk_makes_rows_that_anyone_can_make_again(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    summary = in_one_process(config(tmp_path, qwen, "chunk", chunk_tokens=32, chunk_overlap=4))
    found = read_dataset(tmp_path / "out").to_pylist()
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    assert {row["id"] for row in found} == {"d0", "d1", "d3", "d4"}
    tokenizer = Tokenizer(f"{qwen}/tokenizer.json", 32, "<|endoftext|>")
    for name, text in zip(["d0", "d1", "d3", "d4"], [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[4]], strict=True):
        rows = [row for row in found if row["id"] == name]
        assert [row["chunk_index"] for row in rows] == list(range(len(rows)))
        assert rows[0]["char_start"] == 0
        assert rows[-1]["char_end"] == len(text)
        for row, after in pairwise(rows):
            assert row["char_start"] < after["char_start"] <= row["char_end"] < after["char_end"]
        for row in rows:
            assert row["content_hash"] == hash_of(text[row["char_start"] : row["char_end"]])
            assert row["document_hash"] == hash_of(text)
            alone = tokenizer.encode([text[row["char_start"] : row["char_end"]]])
            assert row["n_tokens"] == alone.lengths[0] <= 32
            assert not row["truncated"]
    counts = summary.progress.counts
    assert (counts.documents, counts.vectors, counts.rejects, counts.chunked, counts.truncated) == (4, len(found), 0, 2, 0)
    assert problems(tmp_path / "out") == []


def test_chunks_stay_with_their_document_through_crash_and_resume(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    cfg = config(tmp_path, qwen, "chunk", chunk_tokens=32, shards={"max_rows": 2})
    assert run(cfg, lambda progress: None, Recorder(1)).snapshot is None
    in_one_process(cfg).require_complete()
    in_one_process(config(tmp_path, qwen, "chunk", "whole", chunk_tokens=32))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "whole"))


@pytest.fixture(params=["Qwen3-Embedding", "bge", "multilingual-e5"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Models with tokenizers of bytes, of WordPiece and of Unigram."""
    if request.param == "Qwen3-Embedding":
        return str(request.getfixturevalue("qwen"))
    describe(tmp_path / request.param, TWINS[request.param])
    (tmp_path / request.param / "model.safetensors").write_bytes(WEIGHTS_OF_NOTHING)
    return str(tmp_path / request.param)


def mean_of_windows(tokenizer: PlainTokenizer, prompt: str, text: str, windows: list[tuple[int, int]]) -> npt.NDArray[np.float64]:
    """The mean that a document must have, by the tokenizer's own library alone: each token of its text counts once, in the first
    window that holds it, and each window is embedded as a text of its own."""
    starts = [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]
    total, counted = np.zeros(64), 0
    for first, last in windows:
        ids = np.array(tokenizer.encode(prompt + text[first:last]).ids, np.int32)
        own = sum(start < last for start in starts) - counted
        counted += own
        total += SimulatedEmbedder(64, 1e9).embed([ids])[0].astype(np.float64) * own
    assert counted == len(starts)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("overlap", [0, 12])
def test_mean_weighs_windows_by_the_documents_own_tokens_and_counts_overlaps_once(tmp_path: Path, model: str, overlap: int) -> None:
    corpus(tmp_path / "in")
    limits = {"chunk_tokens": 40, "chunk_overlap": overlap, "prompt": "A prompt of some length: "}
    in_one_process(config(tmp_path, model, "chunk", "chunks", **limits))
    in_one_process(config(tmp_path, model, "mean", "mean", **limits))
    tokenizer = PlainTokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chunks, means = read_dataset(tmp_path / "chunks").to_pylist(), read_dataset(tmp_path / "mean").to_pylist()
    assert [row["id"] for row in means] == ["d0", "d1", "d3", "d4"]
    for row in means:
        mine = [chunk for chunk in chunks if chunk["id"] == row["id"]]
        windows = [(chunk["char_start"], chunk["char_end"]) for chunk in mine]
        expected = mean_of_windows(tokenizer, str(limits["prompt"]), TEXTS[int(row["id"][1:])], windows)
        np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)
        assert any(start < end for (_, end), (start, _) in pairwise(windows)) == (overlap > 0 and len(windows) > 1)
        assert row["n_tokens"] == sum(chunk["n_tokens"] for chunk in mine)
        assert not row["truncated"]
    assert problems(tmp_path / "mean") == []


def test_a_document_of_one_window_has_the_same_bits_beside_longer_ones_and_alone(tmp_path: Path, qwen: str) -> None:
    """A run from scratch has other shards than the nights that made a dataset."""
    rows = [{"id": number, "text": f"{number} {TEXTS[0]}" if number else LONG, "lang": "xx"} for number in range(20)]
    for name, part in (("all", rows), ("short", rows[1:])):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "a.jsonl", part)
        in_one_process(simulated(tmp_path / name, tmp_path / f"{name}-out", qwen, long_documents="mean", chunk_tokens=32))
    assert read_dataset(tmp_path / "all-out").slice(1).equals(read_dataset(tmp_path / "short-out"))


def test_reject_says_how_long_they_were(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    summary = in_one_process(config(tmp_path, qwen, "reject"))
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == ["d0", "d3"]
    tables = [pq.read_table(path) for path in (tmp_path / "out/_meta/rejects").glob("*/*.parquet")]
    rejects = pa.concat_tables(tables).sort_by("row")  # of the scan, and of embedding
    assert sorted(len(table) for table in tables) == [1, 2]
    assert rejects["id"].to_pylist() == ["d1", "d2", "d4"]
    assert rejects["row"].to_pylist() == [1, 2, 4]
    assert rejects["reason"].to_pylist() == ["too_long", "empty_text", "too_long"]
    assert "more than 64" in rejects["detail"][0].as_py()
    assert rejects["content_hash"].to_pylist() == [hash_of(TEXTS[1]), None, hash_of(TEXTS[4])]
    assert [source[-5:] for source in rejects["source"].to_pylist()] == ["jsonl"] * 3
    assert (summary.progress.counts.documents, summary.progress.counts.rejects) == (2, 2)
    assert summary.snapshot is not None and (summary.snapshot.documents, summary.snapshot.rejects) == (2, 3)
    assert problems(tmp_path / "out") == []


def test_truncate_counts_what_it_cuts(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    counts = in_one_process(config(tmp_path, qwen, "truncate")).progress.counts
    tokenizer = Tokenizer(f"{qwen}/tokenizer.json", 4096, "<|endoftext|>")
    assert counts.truncated == 2
    # Of a text far longer than the limit only the beginning is tokenized, and the rest estimated by its characters.
    wanted = sum(int(tokenizer.encode([text]).lengths[0]) - 64 for text in (TEXTS[1], TEXTS[4]))
    assert counts.tokens_cut == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("policy", ["truncate", "chunk", "mean", "reject"])
def test_a_shard_of_nothing_but_rejects(tmp_path: Path, qwen: str, policy: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "", "lang": "x"}])
    summary = in_one_process(config(tmp_path, qwen, policy, allow_deletes=0))
    assert summary.snapshot is not None
    assert summary.snapshot.documents == 0
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("policy", ["chunk", "reject"])
def test_a_shard_of_picked_rows_of_two_objects_is_one_file_with_rejects_in_order(tmp_path: Path, qwen: str, policy: str) -> None:
    corpus(tmp_path / "in")
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"id": f"e{number}", "text": text, "lang": "xx"} for number, text in enumerate(TEXTS)])
    job, _ = open_job(config(tmp_path, qwen, policy, chunk_tokens=32 if policy == "chunk" else None))
    first, second = (shard.parts[0] for shard in shards_of(tmp_path / "in"))
    shard = Shard((replace(second, picks=(1, 2, 3)), replace(first, picks=(0, 2, 4)), replace(second, picks=(4,))), parent=7)
    receipt = run_shard(shard, job, SimulatedEmbedder(64, 1e9))
    name = FileName.parse(receipt.shard)
    assert (name.stem.object_id, name.kind, name.parent) == (second.object_id, "e", 7)
    assert receipt.source == f"{second.uri} and 1 more"
    rejects = schema.table_of(job.store.read(job.ledger.rejects_uri(receipt.shard))).select(["id", "source", "row", "reason"]).to_pylist()
    ids = schema.table_of(job.store.read(job.ledger.data_uri(receipt.shard)))["id"].to_pylist()
    empty = [("e2", second.uri, 2, "empty_text"), ("d2", first.uri, 2, "empty_text")]
    too_long = [("e1", second.uri, 1, "too_long"), ("d4", first.uri, 4, "too_long"), ("e4", second.uri, 4, "too_long")]
    expected = empty if policy == "chunk" else [too_long[0], *empty, *too_long[1:]]
    assert [tuple(row.values()) for row in rejects] == expected
    assert list(dict.fromkeys(ids)) == (["e1", "e3", "d0", "d4", "e4"] if policy == "chunk" else ["e3", "d0"])
    assert (receipt.counts.rows, receipt.counts.documents + receipt.counts.rejects) == (7, 7)


@pytest.mark.parametrize("policy", ["truncate", "chunk"])
def test_rejects_of_the_engine_keep_the_hash_of_the_whole_text(tmp_path: Path, qwen: str, policy: str) -> None:
    corpus(tmp_path / "in")
    job, _ = open_job(config(tmp_path, qwen, policy))
    receipt = give_up(shards_of(tmp_path / "in")[0], job, "it died")
    rejects = schema.table_of(job.store.read(job.ledger.rejects_uri(receipt.shard)))
    assert rejects["row"].to_pylist() == list(range(len(TEXTS)))
    assert rejects["content_hash"].to_pylist() == [hash_of(text) if text else None for text in TEXTS]


def test_verify_sees_chunks_that_are_torn_from_their_document(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    in_one_process(config(tmp_path, qwen, "chunk", chunk_tokens=32))
    table = read_dataset(tmp_path / "out")
    assert verify_module.torn_chunks(table) == 0
    index, documents = table["chunk_index"].to_pylist(), table["document_hash"].to_pylist()
    inner = next(row for row, chunk in enumerate(index) if chunk == 2)
    without = pa.concat_tables([table.slice(0, inner), table.slice(inner + 1)])
    assert verify_module.torn_chunks(without) == 1
    assert verify_module.torn_chunks(table.slice(inner)) == 1
    documents[inner] = bytes(16)
    other = table.set_column(table.column_names.index("document_hash"), "document_hash", pa.array(documents, pa.binary(16)))
    assert verify_module.torn_chunks(other) == 2


def test_the_prompt_counts_in_every_chunk(tmp_path: Path, qwen: str) -> None:
    corpus(tmp_path / "in")
    job, plan = open_job(config(tmp_path, qwen, "chunk", chunk_tokens=32, prompt="Note: "))
    prepared = prepare(plan.pending[0], job)
    tokenizer = Tokenizer(f"{qwen}/tokenizer.json", 64, "<|endoftext|>")
    start = tokenizer.encode(["Note:"]).of(0)[:-1].tolist()
    for piece in range(len(prepared.owners)):
        ids = prepared.tokens.of(piece)
        assert ids[: len(start)].tolist() == start
        assert len(ids) <= 32
        assert ids[-1] == tokenizer.after[-1]


def test_a_minified_line_of_a_megabyte_is_chunked(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    text = "".join(f"function f{number}(a,b){{return a[{number}]+b}};" for number in range(30_000))
    pq.write_table(pa.table({"id": ["js"], "text": [text], "lang": ["js"]}), tmp_path / "in" / "a.parquet")
    in_one_process(config(tmp_path, qwen, "chunk", max_tokens=512))
    found = read_dataset(tmp_path / "out").to_pylist()
    assert "".join(text[row["char_start"] : row["char_end"]] for row in found) == text
    assert max(row["n_tokens"] for row in found) <= 512
