"""Documents of which the model would see nothing are rejects, decided by tokens: in whole runs with the simulated engine."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import ConfigError
from bulkembed.inspection.search import query_vector
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary, finish
from tests.support.corpora import write_jsonl
from tests.support.runs import problems, read_dataset, simulated

UNSEEN = ["\u200b\u200b", "\x00\x00", "\ufeff", "\u00ad", "\u0301\u0301", "\ufffd", " \u200b\n\u00ad ", "\u200b" * 20_000]
SEEN = ["word", "\u200bword\u00ad", "\U0001f9ee", "\u200b" * 20_000 + "word", "\u00ad" * 200 + "word " * 200]
NO_TOKEN = "the model has no token for it, beyond those of the prompt, the template and white space"


class NeedsTokens(SimulatedEmbedder):
    """Counts what it embeds, and fails where vLLM does: for a text without tokens."""

    embedded = 0

    def embed(self, documents: TokenIds) -> Vectors:
        assert all(map(len, documents)), "the engine got a text without tokens"
        self.embedded += len(documents)
        return super().embed(documents)


def complete_run(cfg: RunConfig, retried: Collection[str] = ()) -> tuple[Summary, int]:
    """A run that must succeed, and how many documents or windows it has sent to the engine."""
    job, plan = open_job(cfg, retried)
    embedder = NeedsTokens(job.model.width, 1e9)
    summary = finish(job, plan, lambda progress: None, LocalExecutor(embedder))
    summary.require_complete()
    return summary, embedder.embedded


def corpus(folder: Path, texts: list[str], **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "a.jsonl", [{"id": number, "text": text, "lang": "x"} | more for number, text in enumerate(texts)])


def rejects(output: Path) -> list[tuple[Any, ...]]:
    """(id, reason, detail) of all rejects that were ever written."""
    tables = [pq.read_table(path, columns=["id", "reason", "detail"]) for path in sorted((output / "_meta/rejects").glob("*/*.parquet"))]
    return [tuple(row.values()) for row in pa.concat_tables(tables).sort_by("id").to_pylist()]


@pytest.mark.parametrize("policy", ["truncate", "chunk", "mean", "reject"])
def test_what_the_model_has_no_token_for_is_an_empty_text(tmp_path: Path, minilm: str, policy: str) -> None:
    corpus(tmp_path / "in", [*UNSEEN, *SEEN])
    cfg = simulated(tmp_path / "in", tmp_path / "out", minilm, long_documents=policy)
    summary, _ = complete_run(cfg)
    first, last = len(UNSEEN), len(UNSEEN) + len(SEEN) - 1
    long = [(last, "too_long")] if policy == "reject" else []
    assert [row[:2] for row in rejects(tmp_path / "out")] == [(number, "empty_text") for number in range(first)] + long
    assert {row[2] for row in rejects(tmp_path / "out")[:first]} == {NO_TOKEN}
    found = read_dataset(tmp_path / "out")
    assert set(found["id"].to_pylist()) == set(range(first, last + 1)) - {number for number, _ in long}
    assert min(found["n_tokens"].to_pylist()) >= 3
    assert summary.snapshot is not None
    assert summary.snapshot.documents + summary.snapshot.rejects == len(UNSEEN) + len(SEEN)
    assert problems(tmp_path / "out") == []


def test_tokens_of_the_prompt_and_the_template_are_not_the_texts(tmp_path: Path, minilm: str) -> None:
    corpus(tmp_path / "in", ["\u200b", "of", "\u200b\u200b", "passage: title text"], title="\u00ad")
    rows = [{"id": 9, "text": "\u200b", "title": "title", "lang": "x"}, {"id": 10, "text": None, "title": "\x00", "lang": "x"}]
    write_jsonl(tmp_path / "in" / "b.jsonl", rows)
    more = {"text_columns": ["title", "text"], "template": "title: {title} text: {text} {{end}}", "prompt": "passage: "}
    complete_run(simulated(tmp_path / "in", tmp_path / "out", minilm, **more))
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [1, 3, 9]
    assert [row[:2] for row in rejects(tmp_path / "out")] == [(0, "empty_text"), (2, "empty_text"), (10, "empty_text")]


def test_a_tokenizer_decides_not_the_characters(tmp_path: Path, qwen: str) -> None:
    """A tokenizer of bytes has tokens for zero-width characters, and the model sees them."""
    corpus(tmp_path / "in", UNSEEN)
    complete_run(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert read_dataset(tmp_path / "out").num_rows == len(UNSEEN)


def with_tokenizer(model: str, folder: Path, tokenizer: str) -> str:
    """The same model with another tokenizer.json, and without the settings beside it, which say what stands in the first one."""
    folder.mkdir()
    for path in Path(model).iterdir():
        if "token" not in path.name:
            (folder / path.name).symlink_to(path)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return str(folder)


def test_white_space_that_a_tokenizer_makes_of_zero_width_characters_is_no_text(tmp_path: Path, minilm: str) -> None:
    """Tokenizers such as that of XLM-RoBERTa turn these into spaces, and have a token for a space."""
    rust = RustTokenizer(models.WordLevel({"\u2581": 0, "\u2581word": 1, "?": 2}, unk_token="?"))
    rust.normalizer = normalizers.Replace("\u200b", " ")
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    corpus(tmp_path / "in", ["\u200b", "\u200b" * 3, "word", "\u200bother", "\u200b" * 100])
    cfg = simulated(tmp_path / "in", tmp_path / "out", with_tokenizer(minilm, tmp_path / "model", rust.to_str()), long_documents="chunk")
    assert complete_run(cfg)[0].job.tokenizer.own_ids(" \u200b") == [0, 0]
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [2, 3]
    assert [row[:2] for row in rejects(tmp_path / "out")] == [(0, "empty_text"), (1, "empty_text"), (4, "empty_text")]


def test_the_engine_gets_no_text_without_tokens(tmp_path: Path, minilm: str) -> None:
    whole = json.loads((Path(minilm) / "tokenizer.json").read_text(encoding="utf-8"))
    model = with_tokenizer(minilm, tmp_path / "model", json.dumps(whole | {"post_processor": None}))
    corpus(tmp_path / "in", [*UNSEEN, *SEEN])
    cfg = simulated(tmp_path / "in", tmp_path / "out", model, long_documents="chunk")
    summary, _ = complete_run(cfg)
    assert [row[1] for row in rejects(tmp_path / "out")] == ["empty_text"] * len(UNSEEN)
    assert summary.snapshot is not None
    with pytest.raises(ConfigError, match="query: the model has no token for '\\\\u200b'"):
        query_vector(summary.snapshot, summary.job.tokenizer, NeedsTokens(384, 1e9), "\u200b", "")


def test_the_decision_is_remembered_and_the_same_when_rejects_are_tried_again(tmp_path: Path, minilm: str) -> None:
    corpus(tmp_path / "in", ["\u200b", "word"])
    cfg = simulated(tmp_path / "in", tmp_path / "out", minilm)
    complete_run(cfg)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"id": 7, "text": "\u200b", "lang": "y"}, {"id": 8, "text": "other", "lang": "y"}])
    summary, embedded = complete_run(cfg)
    assert (embedded, summary.night.remembered) == (1, 1)
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (2, 2)
    retried, _ = complete_run(cfg, {"empty_text"})  # as `retry-rejects` does
    assert retried.snapshot is not None
    assert (retried.snapshot.documents, retried.snapshot.rejects) == (2, 2)
    assert problems(tmp_path / "out") == []
