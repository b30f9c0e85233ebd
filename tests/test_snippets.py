"""The manual's code for readers, run as it is written, on small datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import polars
import pytest

from tests.support.corpora import write_corpus, write_jsonl
from tests.support.processes import ROOT
from tests.support.runs import in_one_process, simulated
from tests.test_docs import blocks

OUTPUT = "s3://corpus/vectors"  # what README and docs/output.md read
ROWS = 100


def snippets(page: str, language: str) -> list[str]:
    return [block.text for block in blocks(ROOT / page) if block.language == language]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, qwen: str, s3: dict[str, Any]) -> Iterator[None]:
    """A dataset at OUTPUT, an older one beside it that is not current, and the credentials of its store in the environment."""
    source = tmp_path_factory.mktemp("snippets") / "in"
    write_corpus(source, files=2, rows=ROWS // 2)
    for dims in ((32,), (64,)):
        in_one_process(simulated(source, OUTPUT, qwen, storage=s3, dims=dims))
    with pytest.MonkeyPatch.context() as environment:
        settings = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "ENDPOINT_URL": "endpoint_url"}
        for name, option in settings.items():
            environment.setenv(f"AWS_{name}", s3[option])
        environment.setenv("AWS_ALLOW_HTTP", "true")  # of polars: the tests' server has no certificate
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


def test_python_of_the_output_page_reads_the_live_rows(vectors: None) -> None:
    code = next(text for text in snippets("docs/output.md", "python") if "polars" in text)
    *lines, last = code.rstrip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    try:
        assert eval(last, names).to_table().num_rows == ROWS
        assert names["duckdb"].read_parquet(names["files"]).select("id", "embedding").fetchall().__len__() == ROWS
        lazy = polars.scan_parquet(names["files"], glob=False).select("id", "embedding")
        assert lazy.collect().shape == (ROWS, 2)
    finally:
        duckdb.unregister_filesystem("s3")


@pytest.mark.parametrize("page", ["README.md", "docs/output.md"])
def test_sql_reads_the_live_rows(vectors: None, page: str) -> None:
    (code,) = snippets(page, "sql")
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("s3"))  # DuckDB's own access to S3 is an extension that it downloads
        statements = "\n".join(line for line in code.splitlines() if not line.startswith("create secret"))
        assert len(connection.execute(statements).fetchall()) == ROWS


def test_sql_of_the_operations_page_counts_rejects_by_reason(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "one"}, {"id": 2, "text": ""}, {"id": 3}])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    (code,) = snippets("docs/operations.md", "sql")
    with duckdb.connect() as connection:
        rows = connection.execute(code.replace(OUTPUT, str(tmp_path / "out"))).fetchall()
    place = f"{tmp_path}/in/a.jsonl, row"
    assert sorted(rows) == [("empty_text", 1, f"{place} 1"), ("null_text", 1, f"{place} 2")]


def test_python_of_the_vectors_page_searches_int8_and_binary_vectors(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "in", files=2, rows=ROWS // 2)
    in_one_process(simulated("in", "out", qwen, vectors="64:float16,32:int8,64:binary"))
    query = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    (code,) = snippets("docs/vectors.md", "python")
    names: dict[str, Any] = {"query": query}
    # The model of the tests has 64 dimensions, that of the page at least 1,024.
    exec(code.replace("1024", "64").replace("256", "32").replace("128)", "8)"), names)
    full = names["rows"]["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 64).astype(np.float32)
    cut = full[:, :32] / np.linalg.norm(full[:, :32], axis=1, keepdims=True)
    assert np.allclose(names["scores"], cut @ names["cut"], atol=0.05)
    assert (names["hamming"] == ((full > 0) != (query > 0)).sum(axis=1)).all()
