"""The real thing: Ray, vLLM on CPU, real models. Vectors against independent implementations."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray

from bulkembed.embedding import reference
from bulkembed.embedding.model_files import describe
from bulkembed.storage.store import Store
from scripts.samples import demo_corpus
from tests.support.processes import PATIENCE, ROOT, bulkembed
from tests.support.runs import read_dataset

pytestmark = pytest.mark.engine

COUNT = 200
MAX_TOKENS = 200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 documents evenly out of the demo corpus: prose and code, a few tokens to thousands."""
    rows = list(demo_corpus.documents())
    picked = [rows[number * len(rows) // COUNT] for number in range(COUNT)]
    folder = tmp_path_factory.mktemp("real")
    pq.write_table(pa.Table.from_pylist(picked).select(["id", "text"]), folder / "a.parquet", row_group_size=50)
    return folder


@cache
def reference_vectors(library: reference.Library, model: str, path: Path) -> reference.Vectors:
    texts = pq.read_table(path)["text"].to_pylist()
    return reference.reference_vectors(library, model, describe(model, None).pooling, MAX_TOKENS, texts)[1]


DIMS = {"minilm": [384, 128], "qwen": [64, 32]}


@pytest.fixture(scope="module")
def rays_address(ray_session: None) -> str:
    return str(ray.get_runtime_context().gcs_address)


Embedded = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def embedded(corpus: Path, tmp_path_factory: pytest.TempPathFactory, qwen: str, minilm: str, rays_address: str) -> Embedded:
    """The whole corpus, embedded once by `bulkembed run` for each model and dtype."""
    outputs: dict[tuple[str, str], Path] = {}

    def run(name: str, dtype: str) -> Path:
        if (name, dtype) not in outputs:
            output = tmp_path_factory.mktemp(f"engine-{name}-{dtype}") / "out"
            model = {"qwen": qwen, "minilm": minilm}[name]
            result = bulkembed(*run_arguments(corpus, output, model, DIMS[name], dtype), RAY_ADDRESS=rays_address)
            assert result.returncode == 0, result.stderr
            outputs[name, dtype] = output
        return outputs[name, dtype]

    return run


def run_arguments(source: Path, output: Path, model: str, dims: list[int], dtype: str) -> list[object]:
    where = ["run", "--source", source, "--output", output, "--model", model, "--max-tokens", MAX_TOKENS]
    what = ["--dims", ",".join(map(str, dims)), "--allow-untrained-dims", "--set", f"engine.dtype={dtype}"]
    return [*where, *what, "--set", "shards.max_rows=50"]


@pytest.mark.parametrize(
    ("name", "library"),
    [("minilm", "sentence-transformers"), ("qwen", "transformers"), ("qwen", "sentence-transformers")],
)
@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9995), ("float32", 0.99999)])
def test_vectors_are_those_of_the_reference(
    name: str,
    library: reference.Library,
    dtype: str,
    least: float,
    corpus: Path,
    embedded: Embedded,
    request: pytest.FixtureRequest,
) -> None:
    dims = DIMS[name]
    found = read_dataset(embedded(name, dtype))
    wanted = reference_vectors(library, request.getfixturevalue(name), corpus / "a.parquet")
    for dim, column in zip(dims, ["embedding", f"embedding_{dims[1]}"], strict=True):
        vectors = found[column].combine_chunks().flatten().to_numpy().reshape(COUNT, dim)
        cut = wanted[:, :dim] / np.linalg.norm(wanted[:, :dim], axis=1, keepdims=True)
        # The short vector keeps less of the direction, so rounding turns it a little more.
        limit = least if dim == dims[0] else 1 - 2 * (1 - least)
        assert np.min(np.sum(vectors * cut, axis=1)) >= limit


@pytest.fixture(scope="module")
def in_other_company(minilm: str, corpus: Path, tmp_path_factory: pytest.TempPathFactory, rays_address: str) -> Path:
    """The same documents in small shards and small calls, in the other layout of the cluster."""
    output = tmp_path_factory.mktemp("engine-other-company") / "out"
    where = ("--source", corpus, "--output", output, "--model", minilm, "--max-tokens", MAX_TOKENS)
    small = ("--set", "shards.max_rows=7", "--set", "engine.call_tokens=500", "--set", "ray.layout=split")
    result = bulkembed("run", *where, *small, RAY_ADDRESS=rays_address)
    assert result.returncode == 0, result.stderr
    return output


def test_the_same_documents_in_other_company_have_the_same_vectors(in_other_company: Path, embedded: Embedded) -> None:
    outputs = (in_other_company, embedded("minilm", "bfloat16"))
    a, b = (read_dataset(output)["embedding"].combine_chunks().flatten().to_numpy().reshape(COUNT, 384) for output in outputs)
    assert np.min(np.sum(a * b, axis=1)) >= 0.9999


def test_verify_embeds_a_sample_again(in_other_company: Path, corpus: Path) -> None:
    verified = bulkembed("verify", "--output", in_other_company, "--sample", "30", "--source", corpus)
    assert verified.returncode == 0, verified.stderr
    assert "30 rows again" in verified.stdout


def test_queries_carry_the_models_own_prompt_and_find_their_document(in_other_company: Path, corpus: Path) -> None:
    rows = pq.read_table(corpus / "a.parquet").to_pylist()
    row = next(row for row in rows[7:] if len(row["text"]) < 1000)
    found = bulkembed("search", "--output", in_other_company, "--query", row["text"], "-k", "1")
    assert found.returncode == 0, found.stderr
    score, name = found.stdout.split()
    assert (name, float(score) > 0.999) == (row["id"], True)


@pytest.mark.ray
def test_s3_gives_the_vectors_of_local_files(minilm: str, corpus: Path, embedded: Embedded, tmp_path: Path, s3: dict[str, Any]) -> None:
    store, root = Store(s3), f"s3://corpus/{tmp_path.name}"
    store.put(f"{root}/in/a.parquet", (corpus / "a.parquet").read_bytes())
    environment = {"AWS_ACCESS_KEY_ID": s3["key"], "AWS_SECRET_ACCESS_KEY": s3["secret"], "AWS_ENDPOINT_URL": s3["endpoint_url"]}
    common = ("--model", minilm, "--max-tokens", MAX_TOKENS, "--limit", 60, "--dims", "384,128", "--allow-untrained-dims")
    result = bulkembed("run", "--source", f"{root}/in", "--output", f"{root}/out", *common, **environment)
    assert result.returncode == 0, result.stderr
    local, remote = read_dataset(embedded("minilm", "bfloat16")).slice(0, 60), read_dataset(f"{root}/out", **s3)
    assert remote.drop_columns(["embedding", "embedding_128"]).equals(local.drop_columns(["embedding", "embedding_128"]))
    for column, dim in (("embedding", 384), ("embedding_128", 128)):
        here, there = (table[column].combine_chunks().flatten().to_numpy().reshape(60, dim) for table in (local, remote))
        assert np.min(np.sum(here * there, axis=1)) >= 0.9999


@pytest.mark.parametrize(("name", "dtype"), [("minilm", "float32"), ("qwen", "bfloat16")])
def test_check_against_both_references(name: str, dtype: str, request: pytest.FixtureRequest) -> None:
    result = bulkembed("check", "--model", request.getfixturevalue(name), "--reference", "--set", f"engine.dtype={dtype}")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert {row[0] for row in rows} == {"ok"}
    compared = [float(row[row.index("min") + 1]) for row in rows if "min" in row]
    assert len(compared) == 2 * 5
    assert min(compared) >= {"float32": 0.99999, "bfloat16": 0.9995}[dtype]


@pytest.mark.usefixtures("shared_ray")
def test_a_useless_model_stops_the_run_before_its_first_shard(qwen: str, corpus: Path, tmp_path: Path) -> None:
    where = ("--source", corpus, "--output", tmp_path, "--model", qwen, "--max-tokens", 64)
    # Nothing is left of any layer, so every vector is that of the end token.
    result = bulkembed("run", *where, "--set", "engine.args.hf_overrides={rms_norm_eps=1e12}")
    assert result.returncode == 2
    assert "fails the check 'distinct'" in result.stderr
    assert "nothing was embedded" in result.stderr
    assert not list(tmp_path.glob("data/*/*"))


MEAN_POOLING = """
import sys
from bulkembed.cli import app
from bulkembed.embedding import vllm_engine

vllm_engine.VLLM_POOLING["last"] = "MEAN"
app.main(["check", "--model", sys.argv[1], "--max-tokens", "64"])
"""


def test_a_wrong_pooling_is_found(qwen: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEAN_POOLING, qwen], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert result.returncode == 2, result.stderr
    assert "checks: pooling" in result.stderr


@pytest.mark.usefixtures("shared_ray")
def test_other_arguments_of_the_engine_are_another_dataset(qwen: str, corpus: Path, embedded: Embedded, tmp_path: Path) -> None:
    """Vectors of two quantizations, or of two models of one name, are never mixed."""
    shutil.copytree(embedded("qwen", "bfloat16"), tmp_path / "out")
    overrides = 'engine.args.hf_overrides={rope_parameters={rope_type="default", rope_theta=10.0}}'
    result = bulkembed(*run_arguments(corpus, tmp_path / "out", qwen, DIMS["qwen"], "bfloat16"), "--set", overrides)
    assert result.returncode == 0, result.stderr
    plain, other = sorted(tmp_path.glob("out/data/*"), key=lambda path: path.stat().st_mtime_ns)
    made = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("out/_meta/snapshots/*"))]
    assert [snapshot["fingerprint"] for snapshot in made] == [plain.name, other.name]
    assert json.loads(made[0]["provenance"]["engine_args"]) == {}
    assert list(json.loads(made[1]["provenance"]["engine_args"])) == ["hf_overrides"]
    a, b = (pyarrow.dataset.dataset(folder).to_table()["embedding"].combine_chunks().flatten().to_numpy() for folder in (plain, other))
    assert np.abs(a - b).max() > 1e-3, "the argument changed the vectors"


@pytest.mark.usefixtures("shared_ray")
def test_an_engine_in_a_process_of_its_own_gives_the_same_vectors(corpus: Path, qwen: str, embedded: Embedded, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pq.read_table(corpus / "a.parquet").slice(0, 30), tmp_path / "in" / "a.parquet")
    apart = ("--set", "engine.dtype=float32", "--set", 'engine.env={VLLM_ENABLE_V1_MULTIPROCESSING = "1"}')
    where = ("run", "--source", tmp_path / "in", "--output", tmp_path / "out", "--model", qwen, "--max-tokens", MAX_TOKENS)
    result = bulkembed(*where, *apart)
    assert result.returncode == 0, result.stderr
    found, here = (
        {row["id"]: row["embedding"] for row in read_dataset(folder).to_pylist()}
        for folder in (tmp_path / "out", embedded("qwen", "float32"))
    )
    assert len(found) == 30
    assert min(np.dot(found[name], here[name]) for name in found) >= 0.99999
