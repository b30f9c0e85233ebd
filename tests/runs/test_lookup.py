"""What a plan looks up, and what a dataset says of how it was made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bulkembed import api
from bulkembed.config.recipe import Recipe
from bulkembed.dataset.parquet_file import footer_of
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.embedding.model_files import describe
from bulkembed.errors import SourceError
from bulkembed.inspection.verify import verify
from bulkembed.runs.lookup import open_job
from bulkembed.runs.recall import recall_job
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.runs import in_one_process, simulated


def test_a_fresh_plan_asks_once_which_runs_there_are(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", files=1)
    asked: list[str] = []
    read, names = Store.read, Store.names

    def noting(call: Callable[[Store, str], Any]) -> Callable[[Store, str], Any]:
        def noted(store: Store, uri: str) -> Any:
            asked.append(uri)
            return call(store, uri)

        return noted

    monkeypatch.setattr(Store, "read", noting(read))
    monkeypatch.setattr(Store, "names", noting(names))
    job, _ = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert job.cfg.engine.dtype == "auto"
    assert sum("_meta/runs" in uri for uri in asked) == 1
    in_one_process(job.cfg)
    asked.clear()
    open_job(job.cfg)
    assert sum("_meta/runs" in uri for uri in asked) == 2, "the names, and the record of this run"


@pytest.mark.parametrize("vectors", ["64:float16", "64:float32,32:int8"])
def test_footer_receipt_record_and_snapshot_say_the_same_recipe(tmp_path: Path, qwen: str, vectors: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, vectors=vectors, long_documents="mean"))
    recipe = summary.job.recipe
    assert summary.snapshot is not None
    assert Recipe.from_texts(summary.snapshot.provenance) == recipe
    (data, *_) = (tmp_path / "out/data").glob("*/*.parquet")
    footer = footer_of(pq.read_schema(data))
    assert Recipe.from_texts(footer) == recipe
    record = json.loads((tmp_path / f"out/_meta/runs/{recipe.fingerprint}.json").read_text())
    assert Recipe.from_texts(record["provenance"]) == recipe
    receipt = json.loads(next((tmp_path / "out/_meta/receipts").glob("*/*.json")).read_text())["provenance"]
    assert receipt.items() <= footer.items()
    assert {made["vector_key"] for made in (footer, record["provenance"], receipt)} == {recipe.vector_key.digest}


def test_other_columns_of_the_same_vectors_have_the_same_vector_key_in_their_footers(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    changes: list[dict[str, Any]] = [{}, {"keep_columns": []}, {"dims": [32]}, {"prompt": "passage: "}]
    footers = [in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **change)).job.provenance for change in changes]
    keys = [footer["vector_key"] for footer in footers]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len({footer["fingerprint"] for footer in footers}) == 4


def test_the_same_model_elsewhere_resumes_the_run(tmp_path: Path, qwen: str) -> None:
    """Beside a note that nobody reads."""
    write_corpus(tmp_path / "in", files=2)
    elsewhere = tmp_path / "Qwen3-Embedding-moved"
    shutil.copytree(qwen, elsewhere)
    (elsewhere / "README.md").write_text("a note")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    write_jsonl(tmp_path / "in/part-9.jsonl", [{"id": 99999, "text": "a new document", "lang": "en"}])
    again = in_one_process(cfg.model_copy(update={"model": str(elsewhere)}))
    assert (again.night.added, again.plan.rows_pending) == (1, 1)
    assert list(verify(Store(), *newest_dataset(Store(), str(tmp_path / "out")))) == []


def test_the_job_of_a_dataset_is_the_job_that_made_it(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    changes = {"vectors": "64:int8", "text_columns": ["text", "lang"], "template": "{lang}: {text}", "column_types": {"id": "string"}}
    made = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **changes)).job
    _, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    recalled = recall_job(Store(), str(tmp_path / "out"), str(tmp_path / "in"), snapshot, describe(qwen, None))
    assert (recalled.recipe, recalled.carried, recalled.fingerprint) == (made.recipe, made.carried, made.fingerprint)


def test_a_dataset_of_another_version_is_one_line(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    _, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    older = {name: text for name, text in snapshot.provenance.items() if name != "engine_args"}
    for provenance in (older, snapshot.provenance | {"prompt": "another"}):
        with pytest.raises(SourceError, match="was made by another version of bulkembed"):
            recall_job(Store(), str(tmp_path / "out"), "in", replace(snapshot, provenance=provenance), describe(qwen, None))


@pytest.mark.parametrize("missing", ["vectors", "model", "revision", "model_digest", "bulkembed"])
def test_no_command_reads_a_dataset_that_another_version_describes(tmp_path: Path, qwen: str, missing: str) -> None:
    write_corpus(tmp_path / "in", files=1, rows=3)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    (path,) = (tmp_path / "out/_meta/snapshots").glob("*.json")
    snapshot = json.loads(path.read_text())
    del snapshot["provenance"][missing]
    path.write_text(json.dumps(snapshot))
    calls: list[Callable[[], object]] = [
        lambda: api.verify(tmp_path / "out"),
        lambda: api.verify(tmp_path / "out", sample=1, source=tmp_path / "in"),
        lambda: api.search(tmp_path / "out", "a query"),
    ]
    for call in calls:
        with pytest.raises(SourceError, match=r"was made by another version of bulkembed .*; use the version that made it, or run the job"):
            call()
    assert len(api.files(tmp_path / "out")) == 1
