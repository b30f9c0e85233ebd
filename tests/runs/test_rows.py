"""What becomes of single rows: their vectors, and rejects where there can be none."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish, run
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.runs import in_one_process, problems, read_dataset, simulated

WIDTH = 64


def vectors(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    column = table[name].combine_chunks()
    flat: np.ndarray[Any, Any] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_short_vectors_are_the_renormalised_long_ones(tmp_path: Path, qwen: str, dtype: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[64, 32], dtype=dtype))
    found = read_dataset(tmp_path / "out")
    full, short = vectors(found, "embedding"), vectors(found, "embedding_32")
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-3)
    cut = full[:, :32] / np.linalg.norm(full[:, :32], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-6 if dtype == "float32" else 1e-3)


def test_bad_rows_of_one_file(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    texts = ["fine", None, "", 7, "long " * 500, "fine too"]
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number % 5, "text": text, "lang": "en"} for number, text in enumerate(texts)])
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    summary.require_complete()
    found = read_dataset(tmp_path / "out")
    assert found["id"].to_pylist() == [0, 4, 0]
    assert found["truncated"].to_pylist() == [False, True, False]
    assert found["n_tokens"].to_pylist()[1] == 64
    (rejects,) = (tmp_path / "out" / "_meta" / "rejects").glob("*/*.parquet")
    assert pq.read_table(rejects)["reason"].to_pylist() == ["null_text", "empty_text", "not_text"]
    counts = summary.progress.counts
    assert (counts.rejects, counts.truncated, counts.repeated_ids) == (0, 1, 1), "the scan has taken the rejects out"
    assert summary.snapshot is not None
    assert summary.snapshot.rejects == 3
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("value", [0.0, 1e-21, np.nan, np.inf])
@pytest.mark.parametrize("forms", ["64:float32,32:float16", "64:float16,48:binary,32:int8"])
def test_a_vector_whose_first_components_have_no_direction_fails_its_row_alone(tmp_path: Path, qwen: str, value: float, forms: str) -> None:
    class Flat(SimulatedEmbedder):
        def _embed(self, documents: Any) -> Any:
            found = super()._embed(documents)
            found[[len(ids) == poison for ids in documents], :32] = value
            return found

    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": "word " * (1 + n), "lang": "xx"} for n in range(9)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, vectors=forms)
    poison = len(open_job(cfg)[0].tokenizer.encode(["word " * 4]).of(0))
    run(cfg, lambda progress: None, LocalExecutor(Flat(WIDTH, 1e9))).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 1, 2, 4, 5, 6, 7, 8]
    (rejects,) = (tmp_path / "out" / "_meta" / "rejects").glob("*/*.parquet")
    (reject,) = pq.read_table(rejects).to_pylist()
    assert (reject["id"], reject["reason"]) == (3, "bad_vector")
    assert "its first 32 components" in reject["detail"]
    assert problems(tmp_path / "out") == []


def test_a_file_of_nothing_but_rejects(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number, "text": "", "lang": "x"} for number in range(3)])
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, allow_deletes=0))
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (0, 3)
    assert problems(tmp_path / "out") == []


RUBBISH = [
    "\u691c\u7d22\u306f\u901f\u3044",
    "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "e\u0301\u0323" * 50,
    "before\0after",
    "\0",
    "var a=1;" * 130_000,
    "\ufeff",
    "\u202eright to left",
    "fine",
]


def test_text_of_every_kind_is_embedded_in_its_own_row(tmp_path: Path, qwen: str, minilm: str) -> None:
    (tmp_path / "in").mkdir()
    rows = [{"id": number, "text": text, "lang": "xx"} for number, text in enumerate(RUBBISH)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet")
    write_jsonl(tmp_path / "in" / "b.jsonl", rows)
    for model, unseen in ((qwen, set[int]()), (minilm, {RUBBISH.index("\0"), RUBBISH.index("\ufeff")})):  # without a token: rejects
        cfg = simulated(tmp_path / "in", tmp_path / Path(model).name, model)
        job, plan = open_job(cfg)
        finish(job, plan, lambda progress: None, LocalExecutor(SimulatedEmbedder(job.model.width, 1e9))).require_complete()
        found = read_dataset(tmp_path / Path(model).name)
        left = [number for number in range(len(RUBBISH)) if number not in unseen]
        assert found["id"].to_pylist() == left * 2
        hashes = [hashlib.blake2b(RUBBISH[number].encode(), digest_size=16).digest() for number in left]
        assert found["content_hash"].to_pylist() == hashes * 2
        full = vectors(found, "embedding")
        np.testing.assert_array_equal(full[: len(left)], full[len(left) :])


def test_what_is_no_text_is_rejected_and_shifts_no_row(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    lines = [
        b'{"id": 0, "text": "fine", "lang": "x"}',
        b'{"id": 1, "text": "lone \\ud800 surrogate", "lang": "x"}',  # U+FFFD stands for it
        b'{"id": 2, "text": "not \xff utf-8", "lang": "x"}',
        b'{"id": 3, "text": "fine too", "lang": "x"}',
        b'{"id": 4, "text": "cut off',
        b"[5]",
        b'{"id": 6, "text": "last", "lang": "x"}',
    ]
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(lines))
    table = pa.table({"id": [7, 8, 9], "text": pa.array([b"good", b"bad \xc3\x28", b"good too"], pa.binary()), "lang": ["x"] * 3})
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 1, 3, 6, 7, 9]
    reasons = [pq.read_table(path).select(["row", "reason"]).to_pylist() for path in sorted(tmp_path.glob("out/_meta/rejects/*/*"))]
    assert [(row["row"], row["reason"]) for row in reasons[0]] == [(2, "undecodable"), (4, "not_json"), (5, "not_json")]
    assert [(row["row"], row["reason"]) for row in reasons[1]] == [(1, "undecodable")]
