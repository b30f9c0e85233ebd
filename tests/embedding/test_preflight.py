"""The checks that stand before a run: what is right passes, what is sabotaged is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bulkembed.config.recipe import Recipe
from bulkembed.config.run_config import RunConfig
from bulkembed.embedding import preflight
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import GateError
from bulkembed.records import Model, Pooling, Tokens
from bulkembed.runs.job import load_tokenizer
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import quantize
from tests.support.models import recipe

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


class States(SimulatedEmbedder):
    """Real maths in place of a real model: a state for every token, pooled as asked for. `test_engine` has the real one."""

    def __init__(self, pooling: Pooling) -> None:
        super().__init__(64, 1e9)
        self.pooling = pooling

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        return np.stack([super(States, self)._embed([document[: at + 1]])[0] for at in range(len(document))])

    def _embed(self, documents: TokenIds) -> Vectors:
        pooled = np.stack([preflight.POOLING[self.pooling](self.token_states(document)) for document in documents])
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), np.float32)


class Unnormalised(States):
    def _embed(self, documents: TokenIds) -> Vectors:
        return super()._embed(documents) * np.float32(1.5)


class Company(States):
    """Vectors that depend on what else is in the batch, as with padding that attention sees."""

    def _embed(self, documents: TokenIds) -> Vectors:
        longest = max(map(len, documents))
        return super()._embed([np.concatenate([each, np.zeros(longest - len(each), np.int32)]) for each in documents])


class Shifted(States):
    """Answers in another order than asked."""

    def _embed(self, documents: TokenIds) -> Vectors:
        vectors = super()._embed(documents)
        return np.roll(vectors, 1, axis=0) if len(vectors) > 1 else vectors


class Broken(States):
    def _embed(self, documents: TokenIds) -> Vectors:
        vectors = super()._embed(documents)
        vectors[0, 3] = np.nan
        return vectors


class Constant(States):
    def _embed(self, documents: TokenIds) -> Vectors:
        return np.full((len(documents), 64), 0.125, np.float32)

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        return np.full((len(document), 64), 0.125, np.float32)


class Narrow(States):
    def _embed(self, documents: TokenIds) -> Vectors:
        vectors = super()._embed(documents)[:, :32]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class LosesTheEnd(Tokenizer):
    def encode(self, texts: Any, prompt: str = "") -> Tokens:
        tokens = super().encode(texts, prompt)
        return Tokens.join([tokens.of(number)[:-1] for number in range(len(texts))], tokens.n_cut)


class CutsTheEnd(Tokenizer):
    """Truncates as a list of ids is truncated: the end token goes with the rest."""

    def encode(self, texts: Any, prompt: str = "") -> Tokens:
        self.room += 1
        tokens = super().encode(texts, prompt)
        self.room -= 1
        return Tokens.join([tokens.of(number)[: self.max_tokens] for number in range(len(texts))], tokens.n_cut)


class DoublesThePrompt(Tokenizer):
    def encode(self, texts: Any, prompt: str = "") -> Tokens:
        return super().encode([prompt + text for text in texts], prompt)


def setting(qwen: str, **values: Any) -> tuple[Model, Recipe]:
    model = describe(qwen, None)
    given = {"source": "none", "output": "none", "model": qwen, "max_tokens": 80, "engine": {"kind": "simulated"}}
    return model, recipe(RunConfig.model_validate(given | values), model)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dims": [64, 32]},
        {"instruction": INSTRUCTION},
        {"vectors": "64:float16,64:int8,32:binary"},
        {"long_documents": "chunk", "chunk_tokens": 40},
    ],
)
def test_what_is_right_passes(qwen: str, values: dict[str, Any]) -> None:
    model, made = setting(qwen, **values)
    preflight.require_checks(model, made, load_tokenizer(model, made.vector_key.chunk_tokens), States("last"))


@pytest.mark.parametrize(
    ("embedder", "check"),
    [
        (States("mean"), "pooling"),
        (States("cls"), "pooling"),
        (Unnormalised("last"), "norm"),
        (Company("last"), "batch invariance"),
        (Shifted("last"), "batch invariance"),
        (Broken("last"), "finite"),
        (Constant("last"), "distinct"),
        (Narrow("last"), "width"),
    ],
)
def test_a_sabotaged_engine_is_caught(qwen: str, embedder: States, check: str) -> None:
    model, made = setting(qwen)
    with pytest.raises(GateError, match=f"fails the check {check!r}"):
        preflight.require_checks(model, made, load_tokenizer(model, 80), embedder)


@pytest.mark.parametrize("sabotaged", [LosesTheEnd, CutsTheEnd, DoublesThePrompt])
def test_sabotaged_tokens_are_caught(qwen: str, sabotaged: type[Tokenizer]) -> None:
    model, made = setting(qwen, instruction=INSTRUCTION)
    with pytest.raises(GateError, match="fails the check 'tokens'"):
        preflight.require_checks(model, made, sabotaged(f"{qwen}/tokenizer.json", 80, model.end_token), States("last"))


def test_short_vectors_that_are_not_renormalised_are_caught(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = setting(qwen, dims=[64, 32])
    monkeypatch.setattr(quantize, "cut_vectors", lambda vectors, dim: vectors[:, :dim])
    with pytest.raises(GateError, match=r"fails the check 'vectors 32:float32'.*norm"):
        preflight.require_checks(model, made, load_tokenizer(model, 80), States("last"))
