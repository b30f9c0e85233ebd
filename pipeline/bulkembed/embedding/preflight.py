"""What must hold of a loaded model before it may embed anything: checked on a few fixed texts, with no
reference at hand. A wrong pooling, a lost end token or a doubled prompt makes vectors that look fine
and find nothing; here the run refuses to start instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.embedder import Embedder
from bulkembed.errors import GateError
from bulkembed.records import Model, Pooling
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import matryoshka

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
ENGINE_TOKENS = 32  # of a probe, behind the prompt, that the engine is given: a gate must be quick on any device
ALIKE = {"float32": 0.99999, "bfloat16": 0.9995, "float16": 0.9995}  # least cosine of two vectors that should be the same
DIFFERENT = 0.9999  # greatest cosine of two texts that say different things
NORM_TOLERANCE = 1e-3

POOL: dict[Pooling, Callable[[Vectors], Vectors]] = {
    "last": lambda states: states[-1],
    "cls": lambda states: states[0],
    "mean": lambda states: states.mean(axis=0),
}


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    found: str


def require(model: Model, cfg: RunConfig, tokenizer: Tokenizer, embedder: Embedder) -> None:
    """Raises GateError naming the first check that fails."""
    for check in examine(model, cfg, tokenizer, embedder):
        if not check.passed:
            raise GateError(f"model: {model.name} fails the check {check.name!r}: {check.found}; nothing was embedded")


def examine(model: Model, cfg: RunConfig, tokenizer: Tokenizer, embedder: Embedder) -> Iterator[Check]:
    """All checks of a resolved configuration, one after the other."""
    yield from token_checks(model, cfg.prompt or "", tokenizer)
    texts = [*PROBES.values(), LONG_PROBE]
    tokens = tokenizer.encode(texts, cfg.prompt or "")
    most = ENGINE_TOKENS + tokenizer.count(cfg.prompt or "")
    probes = [shortened(tokens.of(number), tokenizer, most) for number in range(len(texts))]
    together = embedder.embed(probes)
    yield from vector_checks(model, probes, together, embedder, ALIKE[cfg.engine.dtype])
    yield from form_checks(cfg, together)


def shortened(ids: Ids, tokenizer: Tokenizer, most: int) -> Ids:
    """At most `most` of a text's own ids, special tokens kept."""
    before, after = len(tokenizer.before), len(tokenizer.after)
    return ids if len(ids) <= before + most + after else np.concatenate([ids[: before + most], ids[len(ids) - after :]])


def token_checks(model: Model, prompt: str, tokenizer: Tokenizer) -> Iterator[Check]:
    """Our token ids against the tokenizer's own, which knows nothing of our truncation."""
    after = len(tokenizer.after)
    wrong = []
    for name, text in {**PROBES, "truncated": LONG_PROBE}.items():
        ours = tokenizer.encode([text], prompt).of(0).tolist()
        whole = tokenizer.rust.encode(prompt + text).ids
        if len(whole) > tokenizer.max_tokens:
            whole = whole[: tokenizer.max_tokens - after] + whole[len(whole) - after :]
        if ours != whole:
            wrong.append(name)
    yield Check(
        "tokens", not wrong, f"differ from the tokenizer's own for: {', '.join(wrong)}" if wrong else "equal to the tokenizer's own"
    )
    if model.end_token is not None:
        wanted = tokenizer.rust.token_to_id(model.end_token)
        tokens = tokenizer.encode([*PROBES.values(), LONG_PROBE], prompt)
        ends = tokens.flat[tokens.offsets[1:] - 1]
        good = bool(np.all(ends == wanted))
        yield Check("end token", good, f"{model.end_token} ends every text" if good else f"{model.end_token} does not end every text")


def vector_checks(model: Model, probes: list[Ids], together: Vectors, embedder: Embedder, alike: float) -> Iterator[Check]:
    shape = (len(probes), model.width)
    yield Check("width", together.shape == shape, f"vectors of shape {together.shape}, expected {shape}")
    finite = bool(np.isfinite(together).all())
    yield Check("finite", finite, "all numbers are finite" if finite else "NaN or infinite numbers")
    worst = float(np.abs(np.linalg.norm(together, axis=1) - 1).max())
    yield Check("norm", worst <= NORM_TOLERANCE, f"norms are 1 within {worst:.1e}")
    some = probes[::2]  # a call for each is what a large model's gate would spend its time on
    alone = np.concatenate([embedder.embed([probe]) for probe in some])
    yield least("batch invariance", matryoshka.cosines(together[::2], alone), alike, "alone and in a batch")
    yield least("order invariance", matryoshka.cosines(together, embedder.embed(probes[::-1])[::-1]), alike, "in another order")
    pooled = np.stack([POOL[model.pooling](embedder.token_states(probe)) for probe in some])
    yield least("pooling", matryoshka.cosines(together[::2], pooled), alike, f"with {model.pooling} pooling of the tokens' own states")
    others = together @ together.T - 2 * np.eye(len(probes), dtype=np.float32)
    yield Check("distinct", float(others.max()) < DIFFERENT, f"different texts have cosines up to {float(others.max()):.4f}")


def form_checks(cfg: RunConfig, vectors: Vectors) -> Iterator[Check]:
    """Each output form of the run against the slice it stands for."""
    for form in cfg.vectors or ():
        ranges = matryoshka.ranges_of(vectors, form.dim) if form.dtype == "int8" else None
        stored = matryoshka.decode(matryoshka.encode(vectors, form, ranges), form, ranges)
        alike = {"float32": 0.999999, "float16": 0.9999, "int8": 0.99, "binary": 0.0}[form.dtype]
        found = least(f"vectors {form}", matryoshka.cosines(stored, vectors[:, : form.dim]), alike, "with the slice of the full vector")
        worst = float(np.abs(np.linalg.norm(stored, axis=1) - 1).max())
        unit = worst <= (0.05 if form.dtype == "int8" else NORM_TOLERANCE)
        yield Check(found.name, found.passed and unit, f"{found.found}, norm 1 within {worst:.1e}")


def least(name: str, found: npt.NDArray[np.float64], limit: float, what: str) -> Check:
    worst = float(found.min())
    return Check(name, worst >= limit, f"least cosine {what}: {worst:.6f}" + ("" if worst >= limit else f", expected {limit}"))
