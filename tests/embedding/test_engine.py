"""The real thing: Ray, vLLM on CPU, real models. Vectors against independent implementations."""

from __future__ import annotations

import json
import os
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

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import reference, vllm_engine, vllm_patches
from bulkembed.embedding.environment import engine_environment
from bulkembed.embedding.model_files import describe
from bulkembed.storage.store import Store
from scripts.samples import demo_corpus
from tests.support.corpora import write_corpus
from tests.support.processes import ROOT, bulkembed
from tests.support.runs import read_dataset

pytestmark = [pytest.mark.engine, pytest.mark.ray]

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


@pytest.fixture
def embedded(corpus: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str, str], Path]:
    """The whole corpus, embedded by `bulkembed run`: the second time nothing is left to do."""

    def run(name: str, dtype: str) -> Path:
        output = tmp_path_factory.getbasetemp() / f"engine-{name}-{dtype}"
        where = ("run", "--source", corpus, "--output", output, "--model", request.getfixturevalue(name), "--max-tokens", MAX_TOKENS)
        what = ("--dims", ",".join(map(str, DIMS[name])), "--allow-untrained-dims", "--set", f"engine.dtype={dtype}")
        result = bulkembed(*where, *what, "--set", "shards.max_rows=50")
        assert result.returncode == 0, result.stderr
        return output

    return run


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
    embedded: Callable[[str, str], Path],
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


@pytest.mark.usefixtures("shared_ray")
def test_queries_carry_the_models_own_prompt_and_find_their_document(minilm: str, corpus: Path, tmp_path: Path) -> None:
    source = pq.read_table(corpus / "a.parquet").slice(0, 40)
    (tmp_path / "in").mkdir()
    pq.write_table(source, tmp_path / "in" / "a.parquet")
    result = bulkembed("run", "--source", tmp_path / "in", "--output", tmp_path / "out", "--model", minilm, "--set", "ray.layout=split")
    assert result.returncode == 0, result.stderr
    row = source.slice(7, 1).to_pylist()[0]
    found = bulkembed("search", "--output", tmp_path / "out", "--query", row["text"], "-k", "1")
    assert found.returncode == 0, found.stderr
    score, name = found.stdout.split()
    assert (name, float(score) > 0.999) == (row["id"], True)


def test_s3_gives_the_vectors_of_local_files(
    minilm: str, corpus: Path, embedded: Callable[[str, str], Path], tmp_path: Path, s3: dict[str, Any]
) -> None:
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
    result = subprocess.run([sys.executable, "-c", MEAN_POOLING, qwen], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert result.returncode == 2, result.stderr
    assert "checks: pooling" in result.stderr


@pytest.mark.usefixtures("shared_ray")
def test_other_arguments_of_the_engine_are_another_dataset(qwen: str, tmp_path: Path) -> None:
    """Vectors of two quantizations, or of two models of one name, are never mixed."""
    write_corpus(tmp_path / "in", files=1)
    common = ("run", "--source", tmp_path / "in", "--output", tmp_path / "out", "--model", qwen, "--max-tokens", 64)
    overrides = 'engine.args.hf_overrides={rope_parameters={rope_type="default", rope_theta=10.0}}'
    for flags in ((), ("--set", overrides)):
        assert bulkembed(*common, *flags).returncode == 0
    plain, other = sorted(tmp_path.glob("out/data/*"), key=lambda path: path.stat().st_mtime_ns)
    made = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("out/_meta/snapshots/*"))]
    assert [snapshot["fingerprint"] for snapshot in made] == [plain.name, other.name]
    assert json.loads(made[0]["provenance"]["engine_args"]) == {}
    assert list(json.loads(made[1]["provenance"]["engine_args"])) == ["hf_overrides"]
    a, b = (pyarrow.dataset.dataset(folder).to_table()["embedding"].combine_chunks().flatten().to_numpy() for folder in (plain, other))
    assert np.abs(a - b).max() > 1e-3, "the argument changed the vectors"


@pytest.mark.usefixtures("shared_ray")
def test_the_same_documents_in_other_company_have_the_same_vectors(
    minilm: str, corpus: Path, embedded: Callable[[str, str], Path], tmp_path: Path
) -> None:
    common = ("--source", corpus, "--model", minilm, "--max-tokens", MAX_TOKENS)
    alone = bulkembed("run", *common, "--output", tmp_path / "a", "--set", "shards.max_rows=7", "--set", "engine.call_tokens=500")
    assert alone.returncode == 0, alone.stderr
    outputs = (tmp_path / "a", embedded("minilm", "bfloat16"))
    a, b = (read_dataset(each)["embedding"].combine_chunks().flatten().to_numpy().reshape(COUNT, 384) for each in outputs)
    assert np.min(np.sum(a * b, axis=1)) >= 0.9999
    again = bulkembed("verify", "--output", tmp_path / "a", "--sample", "30", "--source", corpus)
    assert again.returncode == 0, again.stderr
    assert "30 rows again" in again.stdout


NORMS = """
import json, sys
import torch
from bulkembed.embedding import in_process
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.model_files import describe

with in_process.quiet():
    for _ in range(2):
        in_process.load(describe(sys.argv[1], None), 64, EngineConfig(dtype=sys.argv[2]))
from vllm import ir

def exact(x, weight):
    x, weight = x.double(), weight.double()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

torch.manual_seed(0)
wide = torch.randn(50, 192).to(getattr(torch, sys.argv[2]))
heads = wide.reshape(50, 6, 32)
errors = []
for x in (wide, wide[:, 64:128], heads[:, 2:4], heads[:, 1], heads.transpose(0, 1), wide[:1], wide[:0]):
    weight, residual = torch.randn(x.shape[-1]).to(x.dtype), torch.randn(x.shape).to(x.dtype)
    before = x.clone(), residual.clone()
    normed = ir.ops.rms_norm(x, weight, 1e-6)
    added, summed = ir.ops.fused_add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(x, before[0]) and torch.equal(residual, before[1])
    for found, wanted in ((normed, exact(x, weight)), (added, exact(x.double() + residual, weight)), (summed, x.double() + residual)):
        assert found.dtype == x.dtype and found.shape == wanted.shape
        errors.append(((found - wanted).abs() / (wanted.abs() + 0.1)).max().item() if found.numel() else 0.0)
print(json.dumps({"first": [op.get_priority()[0] for op in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm)], "error": max(errors)}))
"""


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("float32", 1e-5)])
def test_a_loaded_engine_norms_with_the_fused_kernels_whatever_the_layout_of_its_tensors(qwen: str, dtype: str, most: float) -> None:
    ran = subprocess.run([sys.executable, "-c", NORMS, qwen, dtype], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {"first": [vllm_patches.PROVIDER] * 2, "error": pytest.approx(0, abs=most)}


LAYERS = """
import dataclasses, json, sys
import numpy as np
from bulkembed.embedding import in_process
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.model_files import describe

documents = [np.random.default_rng(n).integers(300, 4000, n).astype(np.int32) for n in (1, 700, 2, 1024, 300, 1025)]
seen = {"mlp": [], "gate_up_proj": [], "out": []}
with in_process.quiet():
    described = dataclasses.replace(describe(sys.argv[1], None), pooling=sys.argv[3])
    engine = in_process.load(described, 1200, EngineConfig(dtype=sys.argv[2]))

    def watch(model):
        for layer in model.model.layers:
            layer.mlp.gate_up_proj.register_forward_pre_hook(lambda _, given: seen["gate_up_proj"].append(len(given[0])))
        model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen["mlp"].append(len(given[0])))

    engine.llm.apply_model(watch)
    engine.on_vector = lambda: seen["out"].append(1)
    vectors = engine.embed(documents)
    out = len(seen["out"])
    rows = sum(seen["mlp"])
    states = [engine.token_states(document) for document in documents]
    cut = engine.token_states(documents[1][:400])
least = min(float(vector @ each[-1] / np.linalg.norm(each[-1])) for vector, each in zip(vectors, states))
before = float(np.abs(states[1][:400] - cut).max())
print(json.dumps({"rows": rows, "out": out, "most": max(seen["gate_up_proj"]), "least": least, "before": before}))
"""


@pytest.mark.parametrize(
    ("dtype", "pooling", "rows", "pooled"),
    [("bfloat16", "last", 6, True), ("float32", "last", 6, True), ("float32", "mean", 3052, False)],
)
def test_the_last_layer_computes_what_is_pooled_and_all_states_that_are_asked_for(
    qwen: str, dtype: str, pooling: str, rows: int, pooled: bool
) -> None:
    command = [sys.executable, "-c", LAYERS, qwen, dtype, pooling]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["rows"] == rows
    assert found["out"] == 6, "each document is said to have come out"
    assert found["most"] == vllm_patches.TILE_TOKENS
    assert (found["least"] > 0.9999) == pooled
    assert found["before"] == pytest.approx(0, abs=0.05 if dtype == "bfloat16" else 1e-4)


TILES = """
import json, sys
import numpy as np
from bulkembed.embedding import in_process
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.model_files import describe

rows = []
with in_process.quiet():
    engine = in_process.load(describe(sys.argv[1], None), 256, EngineConfig(dtype="float32"))
    documents = [np.random.default_rng(n).integers(1000, 30000, 250).astype(np.int32) for n in range(20)]

    def watch(model):
        for layer in model.model.encoder.layer:
            layer.intermediate.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))

    engine.llm.apply_model(watch)
    together = engine.embed(documents)
    alone = np.concatenate([engine.embed([document]) for document in documents])
least = float((together * alone).sum(1).min())
print(json.dumps({"most": max(rows), "sum": sum(rows), "least": least}))
"""


def test_a_bert_layers_widest_activations_are_of_a_tile(minilm: str) -> None:
    ran = subprocess.run([sys.executable, "-c", TILES, minilm], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["most"], found["sum"]) == (vllm_patches.BERT_TILE_TOKENS, 2 * 20 * 250 * 6)
    assert found["least"] > 0.99999


def test_a_document_without_tokens_is_named_before_the_engine_fails_on_it() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        list(vllm_engine.pooled_outputs(None, [[101, 102], []], None))


GROWTH = """
import ctypes, json, sys
import numpy as np
from bulkembed.embedding import in_process
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.model_files import describe

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Heap
with in_process.quiet():
    engine = in_process.load(describe(sys.argv[1], None), 400, EngineConfig(dtype="bfloat16"))
used = []
for first, last in ((1, 10), (10, 100), (100, 200), (200, 300)):
    for more in range(first, last):  # steps of up to 8,192 tokens, no two of one size
        engine.embed([np.full(394, 1000, np.int32)] * 20 + [np.full(more, 1000, np.int32)])
    used.append(libc.mallinfo2().uordblks)
print(json.dumps(used))
"""


def test_memory_does_not_grow_with_every_number_of_tokens_that_was_seen(qwen: str) -> None:
    settings = engine_environment(EngineConfig(), 2)
    command = [sys.executable, "-c", GROWTH, qwen]
    ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    first, *later = json.loads(ran.stdout.splitlines()[-1])
    assert max(later) - first < 2 << 20


def test_an_engine_in_a_process_of_its_own_gives_the_same_vectors(
    corpus: Path, qwen: str, embedded: Callable[[str, str], Path], tmp_path: Path
) -> None:
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
