"""Brute-force search over a finished dataset, with the dataset's own model and query prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import embedder, matryoshka, model
from pipeline.config import EngineConfig
from pipeline.errors import ModelError
from pipeline.ledger import Ledger
from pipeline.records import Model, Snapshot
from pipeline.storage import Store
from pipeline.tokenizer import Tokenizer

MINE = {"n_tokens", "truncated", "content_hash"}


@dataclass(frozen=True)
class Hit:
    score: float  # cosine
    columns: dict[str, Any]  # id and kept columns


def query_vector(snapshot: Snapshot, described: Model, query: str, engine: EngineConfig) -> np.ndarray[Any, Any]:
    """The query's vector in the dataset's main dimension, float32 of norm 1."""
    made_with = snapshot.provenance
    max_tokens = int(made_with["max_tokens"])
    path = model.locate(described.name, described.revision, weights=True)
    tokens = Tokenizer(str(path / "tokenizer.json"), max_tokens, described.end_token).encode([query], described.query_prompt)
    full = embedder.load(str(path), described, max_tokens, engine).embed([tokens.of(0)])
    vector: np.ndarray[Any, Any] = matryoshka.cut(full, int(made_with["dims"].split(",")[0]), "float32")[0]
    return vector


def dataset_model(snapshot: Snapshot, name: str | None) -> Model:
    """The dataset's model, or the same one under another name; ModelError where that is another model."""
    made_with = snapshot.provenance
    name = name or made_with["model"]
    described = model.describe(name, made_with["revision"] or None)
    if described.digest != made_with["model_digest"]:
        raise ModelError(f"model: {name} is not the model of this dataset: its files differ from those the vectors were made with")
    return described


def search(store: Store, ledger: Ledger, snapshot: Snapshot, query: np.ndarray[Any, Any], k: int) -> list[Hit]:
    """The `k` nearest rows by cosine, best first. Reads every vector, one row group at a time."""
    best: list[Hit] = []
    for rows in row_groups(store, ledger, snapshot):
        column = rows["embedding"].combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size).astype(np.float32)
        scores = vectors @ query
        top = np.argsort(-scores, kind="stable")[:k]
        found = rows.select([name for name in rows.column_names if name not in MINE and not name.startswith("embedding")])
        best += [Hit(float(scores[row]), found.slice(int(row), 1).to_pylist()[0]) for row in top]
        best = sorted(best, key=lambda hit: -hit.score)[:k]
    return best


def row_groups(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[pa.Table]:
    for shard_id in snapshot.shards:
        with store.open(ledger.data(shard_id)) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            for number in range(parquet.num_row_groups):
                yield parquet.read_row_group(number)
