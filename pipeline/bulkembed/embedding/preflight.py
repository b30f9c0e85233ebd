"""Checks of a loaded model on a few fixed texts, without a reference. A model that fails one may not embed anything.

A wrong pooling, a lost end token or a doubled prompt gives vectors that look right and find nothing. These checks
end the run before it writes such vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulkembed.config.recipe import Recipe
from bulkembed.embedding.embedder import Embedder
from bulkembed.errors import GateError
from bulkembed.records import Model, Pooling
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import matryoshka, quantize

Ids = npt.NDArray[np.int32]
Vectors = npt.NDArray[np.float32]

PROBES = {
    "short": "What is a vector?",
    "prose": "A library lends books. Readers bring them back after a month, or pay a small fine; most of them do neither in time, "
    "and the library, which knows its readers, writes them a friendly letter in the fifth week.",
    "multilingual": "Zürich liegt am See. 東京は日本の首都です。 Москва зимой. القاهرة مدينة كبيرة. नमस्ते दुनिया। 👩\u200d🔬 e\u0301",
    "code": "def fibonacci(n: int) -> int:\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
}
LONG_PROBE = " ".join(f"Sentence {number} of a text that is much too long." for number in range(4000))
MAX_PROBE_TOKENS = 32  # of a probe's text, after the prompt: the checks must be quick on any device
MIN_EQUAL_COSINE = {"float32": 0.99999, "bfloat16": 0.9995, "float16": 0.9995}  # of two vectors that should be equal
MIN_FORM_COSINE = {"float32": 0.999999, "float16": 0.9999, "int8": 0.99, "binary": 0.0}  # of a stored vector and its source
MAX_DISTINCT_COSINE = 0.9999  # of two texts that say different things
NORM_TOLERANCE = 1e-3
INT8_NORM_TOLERANCE = 0.05

POOLING: dict[Pooling, Callable[[Vectors], Vectors]] = {
    "last": lambda states: states[-1],
    "cls": lambda states: states[0],
    "mean": lambda states: states.mean(axis=0),
}


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str  # what was measured, for people


def require_checks(model: Model, recipe: Recipe, tokenizer: Tokenizer, embedder: Embedder) -> None:
    """Raises GateError naming the first check that fails."""
    for check in run_checks(model, recipe, tokenizer, embedder):
        if not check.passed:
            raise GateError(f"model: {model.name} fails the check {check.name!r}: {check.detail}; nothing was embedded")


def run_checks(model: Model, recipe: Recipe, tokenizer: Tokenizer, embedder: Embedder) -> Iterator[Check]:
    """All checks, one after the other."""
    prompt = recipe.vector_key.prompt
    yield from token_checks(model, prompt, tokenizer)
    texts = [*PROBES.values(), LONG_PROBE]
    tokens = tokenizer.encode(texts, prompt)
    max_tokens = MAX_PROBE_TOKENS + tokenizer.count(prompt)
    probes = [shorten(tokens.of(number), tokenizer, max_tokens) for number in range(len(texts))]
    vectors = embedder.embed(probes)
    yield from vector_checks(model, probes, vectors, embedder, MIN_EQUAL_COSINE[recipe.vector_key.engine_dtype])
    yield from form_checks(recipe, vectors)


def shorten(ids: Ids, tokenizer: Tokenizer, max_tokens: int) -> Ids:
    """At most `max_tokens` ids of a text's own; special tokens stay."""
    before, after = len(tokenizer.before), len(tokenizer.after)
    return ids if len(ids) <= before + max_tokens + after else np.concatenate([ids[: before + max_tokens], ids[len(ids) - after :]])


def token_checks(model: Model, prompt: str, tokenizer: Tokenizer) -> Iterator[Check]:
    """Our token ids against those of the tokenizer library, which does not use our truncation."""
    after = len(tokenizer.after)
    different = []
    for name, text in {**PROBES, "truncated": LONG_PROBE}.items():
        ours = tokenizer.encode([text], prompt).of(0).tolist()
        expected = tokenizer.rust.encode(prompt + text).ids
        if len(expected) > tokenizer.max_tokens:
            expected = expected[: tokenizer.max_tokens - after] + expected[len(expected) - after :]
        if ours != expected:
            different.append(name)
    detail = f"differ from the tokenizer's own for: {', '.join(different)}" if different else "equal to the tokenizer's own"
    yield Check("tokens", not different, detail)
    if model.end_token is not None:
        end_id = tokenizer.rust.token_to_id(model.end_token)
        tokens = tokenizer.encode([*PROBES.values(), LONG_PROBE], prompt)
        passed = bool(np.all(tokens.flat[tokens.offsets[1:] - 1] == end_id))
        yield Check("end token", passed, f"{model.end_token} {'ends' if passed else 'does not end'} every text")


def vector_checks(model: Model, probes: list[Ids], vectors: Vectors, embedder: Embedder, min_cosine: float) -> Iterator[Check]:
    """`vectors`: those of all probes in one call. Further calls must give equal ones, and different texts different ones."""
    shape = (len(probes), model.width)
    yield Check("width", vectors.shape == shape, f"vectors of shape {vectors.shape}, expected {shape}")
    finite = bool(np.isfinite(vectors).all())
    yield Check("finite", finite, "all numbers are finite" if finite else "NaN or infinite numbers")
    error = norm_error(vectors)
    yield Check("norm", error <= NORM_TOLERANCE, f"norms are 1 within {error:.1e}")
    some = probes[::2]  # not all: each is a call of its own, and with a large model these calls take most of the time
    alone = np.concatenate([embedder.embed([probe]) for probe in some])
    yield cosine_check("batch invariance", matryoshka.cosines(vectors[::2], alone), min_cosine, "alone and in a batch")
    reverse = embedder.embed(probes[::-1])[::-1]
    yield cosine_check("order invariance", matryoshka.cosines(vectors, reverse), min_cosine, "in another order")
    pooled = np.stack([POOLING[model.pooling](embedder.token_states(probe)) for probe in some])
    what = f"with {model.pooling} pooling of the tokens' own states"
    yield cosine_check("pooling", matryoshka.cosines(vectors[::2], pooled), min_cosine, what)
    others = vectors @ vectors.T - 2 * np.eye(len(probes), dtype=np.float32)
    closest = float(others.max())
    yield Check("distinct", closest < MAX_DISTINCT_COSINE, f"different texts have cosines up to {closest:.4f}")


def form_checks(recipe: Recipe, vectors: Vectors) -> Iterator[Check]:
    """Each output form of the run, decoded, against the slice of the full vector that it stores."""
    for form in recipe.row_schema.vectors:
        int8_ranges = quantize.measure_int8_ranges(vectors, form.dim) if form.dtype == "int8" else None
        stored = quantize.decode_vectors(quantize.encode_vectors(vectors, form, int8_ranges), form, int8_ranges)
        cosines = matryoshka.cosines(stored, vectors[:, : form.dim])
        check = cosine_check(f"vectors {form}", cosines, MIN_FORM_COSINE[form.dtype], "with the slice of the full vector")
        error = norm_error(stored)
        has_norm = error <= (INT8_NORM_TOLERANCE if form.dtype == "int8" else NORM_TOLERANCE)
        yield Check(check.name, check.passed and has_norm, f"{check.detail}, norm 1 within {error:.1e}")


def norm_error(vectors: Vectors) -> float:
    """The largest difference of a vector's norm from 1."""
    return float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())


def cosine_check(name: str, cosines: npt.NDArray[np.float64], min_cosine: float, what: str) -> Check:
    smallest = float(cosines.min())
    passed = smallest >= min_cosine
    return Check(name, passed, f"least cosine {what}: {smallest:.6f}" + ("" if passed else f", expected {min_cosine}"))
