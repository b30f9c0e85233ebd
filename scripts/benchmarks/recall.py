"""What search loses by each output form."""

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
from bulkembed.vectors import matryoshka
from bulkembed.vectors.matryoshka import Vectors
from scripts.benchmarks.material import SHAPES, Row, engine_dtype, model_folder
from scripts.samples import demo_corpus

FORMS = ["384:float16", "384:int8", "256:float32", "128:float32", "128:int8", "384:binary", "128:binary"]


def recall(
    queries: Annotated[int, typer.Option(help="Titles of the demo corpus.")] = 500,
    k: Annotated[int, typer.Option("-k", help="Nearest documents.")] = 10,
    candidates: Annotated[int, typer.Option(help="Of the first pass, scored again with int8.")] = 100,
) -> Iterator[Row]:
    """Recall@k of every output form against float32: alone, and as a first pass. MiniLM on the demo corpus."""
    documents, asked = vectors(queries)
    width = documents.shape[1]
    truth = nearest(documents, asked, k)
    int8 = restored(documents, VectorForm(width, "int8"))
    for form in parse_forms(FORMS):
        found = restored(documents, form)
        first = nearest(found, matryoshka.cut(asked, form.dim), candidates)
        rescored = [mine[nearest(int8[mine], query[None], k)[0]] for mine, query in zip(first, asked, strict=True)]
        size = matryoshka.encode(documents[:1], form, matryoshka.ranges_of(documents, form.dim)).nbytes
        yield {
            "form": str(form),
            "bytes": size,
            "recall": shared(truth, first[:, :k]),
            "rescored": shared(truth, rescored),
            "engine_dtype": engine_dtype(),
        }


def vectors(queries: int) -> tuple[Vectors, Vectors]:
    """Of the documents, and of titles evenly out of all."""
    rows = list(demo_corpus.documents())
    model, max_tokens = describe(str(model_folder("minilm")), None), SHAPES["minilm"].max_tokens
    tokens = load_tokenizer(model, max_tokens)
    picked = [rows[number * len(rows) // queries]["title"] for number in range(queries)]
    with in_process.quiet():
        embedder = in_process.load(model, max_tokens, EngineConfig(dtype=engine_dtype()))
        documents, asked = (
            matryoshka.cut(embedder.embed([ids.of(n) for n in range(len(ids.lost))]), model.width)
            for ids in (tokens.encode([row["text"] for row in rows]), tokens.encode(picked))
        )
    return documents, asked


def restored(documents: Vectors, form: VectorForm) -> Vectors:
    """What is left of vectors after they were stored; int8 ranges as a run takes them, from a sample."""
    ranges = matryoshka.ranges_of(documents[:: max(1, len(documents) // 2048)], form.dim)
    return matryoshka.decode(matryoshka.encode(documents, form, ranges), form, ranges)


def nearest(documents: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]


def shared(truth: npt.NDArray[np.int64], found: Sequence[npt.NDArray[np.int64]] | npt.NDArray[np.int64]) -> float:
    return round(float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(truth, found, strict=True)])), 4)
