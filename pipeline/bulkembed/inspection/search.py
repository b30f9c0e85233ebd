"""Brute-force search over a finished dataset, with the dataset's own model and query prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema
from bulkembed.config.template import prompt_for_task
from bulkembed.dataset import vector_columns
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.row_groups import open_data_file
from bulkembed.dataset.snapshots import Snapshot, newest_dataset, snapshot_files
from bulkembed.embedding import in_process, model_files
from bulkembed.embedding.embedder import Embedder
from bulkembed.errors import ConfigError, ModelError
from bulkembed.records import Model
from bulkembed.runs.job import load_tokenizer
from bulkembed.runs.recall import recipe_of
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import matryoshka, quantize

OWN_COLUMNS = {field.name for field in (*schema.TAIL, *schema.CHUNKS)}  # neither the id nor a kept column


@dataclass(frozen=True)
class Hit:
    score: float  # cosine; of int8 and binary vectors, with what they stand for
    columns: dict[str, Any]  # id and kept columns


def search_dataset(
    store: Store,
    output: str,
    query: str,
    k: int,
    prompt_name: str | None,
    instruction: str | None,
    model: str | None,
    engine: Literal["vllm", "simulated"] | None,
    number: int | None,
) -> list[Hit]:
    """The `k` rows of the current snapshot, or of this number, that are nearest to `query`, best first.

    Loads the dataset's model into this process.
    `model` and `engine`: instead of the dataset's own. Raises SourceError, ModelError or ConfigError."""
    if not query.strip():
        raise ConfigError("query: must not be empty")
    if prompt_name is not None and instruction is not None:
        raise ConfigError("prompt_name: give only one of prompt_name and instruction")
    ledger, snapshot = newest_dataset(store, output, number)
    key = recipe_of(output, snapshot).vector_key
    described = dataset_model(snapshot, model)
    prompt = query_prompt(described, prompt_name, instruction)
    with in_process.loaded(described, key.max_tokens, key.engine(engine or key.engine_kind)) as embedder:
        vector = query_vector(snapshot, load_tokenizer(described, key.max_tokens), embedder, query, prompt)
    return nearest(store, ledger, snapshot, vector, k)


def dataset_model(snapshot: Snapshot, name: str | None) -> Model:
    """The dataset's model, or the same one under another name; ModelError where that is another model."""
    made_with = snapshot.provenance
    name = name or made_with["model"]
    is_folder = Path(name).expanduser().is_dir()
    try:
        described = model_files.describe(name, None if is_folder else made_with["revision"] or None)
    except ModelError as error:
        raise ModelError(f"{error}; where the dataset's model lies elsewhere now, --model says where") from error
    if described.digest != made_with["model_digest"]:
        raise ModelError(f"model: {name} is not the model of this dataset: its files differ from those the vectors were made with")
    return described


def query_prompt(described: Model, prompt_name: str | None, instruction: str | None) -> str:
    """What stands before a query: the model's own prompt for queries, another of its prompts, or its instruction with another task."""
    if instruction is not None:
        return prompt_for_task(described, instruction)
    if prompt_name is None:
        return described.query_prompt
    prompts = dict(described.prompts)
    if prompt_name not in prompts:
        raise ConfigError(f"prompt_name: {described.name} has no prompt {prompt_name!r}, only {', '.join(prompts) or 'none'}")
    return prompts[prompt_name]


def query_vector(snapshot: Snapshot, tokenizer: Tokenizer, embedder: Embedder, query: str, prompt: str) -> npt.NDArray[np.float32]:
    """The query's vector in the dataset's main dimension, float32 of norm 1: quantized documents need no quantized query."""
    ids = tokenizer.encode([query], prompt).of(0)
    if not len(ids):
        raise ConfigError(f"query: the model has no token for {query!r}")
    full = embedder.embed([ids])
    return np.asarray(matryoshka.cut_vectors(full, vector_columns.forms_of(snapshot.provenance)["embedding"].dim)[0])


def nearest(store: Store, ledger: Ledger, snapshot: Snapshot, query: npt.NDArray[np.float32], k: int) -> list[Hit]:
    """The `k` nearest rows by cosine, best first. Reads every vector, one row group at a time."""
    form = vector_columns.forms_of(snapshot.provenance)["embedding"]
    ranges = quantize.int8_ranges_from_text(snapshot.provenance).get("embedding")
    best: list[Hit] = []
    for rows in row_groups(store, ledger, snapshot):
        scores = quantize.decode_vectors(vector_columns.stored_values(rows, "embedding"), form, ranges) @ query
        top = np.argsort(-scores, kind="stable")[:k]
        shown = rows.select([name for name in rows.column_names if name not in OWN_COLUMNS and not name.startswith("embedding")])
        best += [Hit(float(scores[row]), {name: schema.display_value(shown[name], int(row)) for name in shown.column_names}) for row in top]
        best = sorted(best, key=lambda hit: -hit.score)[:k]
    return best


def row_groups(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[pa.Table]:
    """Raises StorageError where a data file is missing or damaged."""
    for name in snapshot_files(store, ledger.output, snapshot):
        yield from open_data_file(store, ledger.data_uri(name)).groups()
