"""The row `recall`: what search loses with each output form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import in_process
from bulkembed.embedding.model_files import describe
from bulkembed.records import VectorForm, parse_forms
from bulkembed.runs.job import load_tokenizer
from bulkembed.vectors import matryoshka, quantize
from bulkembed.vectors.matryoshka import Vectors
from scripts.benchmarks.material import SHAPES, Row, engine_dtype, model_folder
from scripts.samples import demo_corpus

FORMS = ["384:float16", "384:int8", "256:float32", "128:float32", "128:int8", "384:binary", "128:binary"]


def recall(
    queries: Annotated[int, typer.Option(help="Queries: titles of the demo corpus.")] = 500,
    k: Annotated[int, typer.Option("-k", help="How many nearest documents count.")] = 10,
    candidates: Annotated[int, typer.Option(help="Documents of the first pass that int8 vectors score again.")] = 100,
) -> Iterator[Row]:
    """Recall@k of every output form against float32.

    `recall` uses the form alone, `rescored` uses it as a first pass. MiniLM embeds the demo corpus."""
    documents, query_vectors = vectors(queries)
    width = documents.shape[1]
    truth = nearest(documents, query_vectors, k)
    int8 = restore(documents, VectorForm(width, "int8"))
    for form in parse_forms(FORMS):
        stored = restore(documents, form)
        first = nearest(stored, matryoshka.cut_vectors(query_vectors, form.dim), candidates)
        rescored = [rows[nearest(int8[rows], query[None], k)[0]] for rows, query in zip(first, query_vectors, strict=True)]
        size = quantize.encode_vectors(documents[:1], form, quantize.measure_int8_ranges(documents, form.dim)).nbytes
        yield {
            "form": str(form),
            "bytes": size,
            "recall": mean_overlap(truth, first[:, :k]),
            "rescored": mean_overlap(truth, rescored),
            "engine_dtype": engine_dtype(),
        }


def vectors(queries: int) -> tuple[Vectors, Vectors]:
    """Vectors of the demo corpus, and of `queries` titles from all over it."""
    rows = list(demo_corpus.documents())
    model, max_tokens = describe(str(model_folder("minilm")), None), SHAPES["minilm"].max_tokens
    tokens = load_tokenizer(model, max_tokens)
    titles = [rows[number * len(rows) // queries]["title"] for number in range(queries)]
    with in_process.quiet():
        embedder = in_process.load(model, max_tokens, EngineConfig(dtype=engine_dtype()))
        documents, query_vectors = (
            matryoshka.cut_vectors(embedder.embed([ids.of(n) for n in range(len(ids.n_cut))]), model.width)
            for ids in (tokens.encode([row["text"] for row in rows]), tokens.encode(titles))
        )
    return documents, query_vectors


def restore(documents: Vectors, form: VectorForm) -> Vectors:
    """Vectors as they are read back from a form. int8 ranges come from a sample, as in a run."""
    int8_ranges = quantize.measure_int8_ranges(documents[:: max(1, len(documents) // 2048)], form.dim)
    return quantize.decode_vectors(quantize.encode_vectors(documents, form, int8_ranges), form, int8_ranges)


def nearest(documents: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]


def mean_overlap(truth: npt.NDArray[np.int64], rows: Sequence[npt.NDArray[np.int64]] | npt.NDArray[np.int64]) -> float:
    return round(float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(truth, rows, strict=True)])), 4)
