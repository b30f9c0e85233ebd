"""Vectors of the libraries that models are published with, to compare ours against. Float32, on the CPU.

They run in a process of their own (`python -m bulkembed.embedding.reference`): texts go in and vectors come out as JSON.
The only user of sentence-transformers and transformers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding import preflight
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.preflight import Check
from bulkembed.errors import ModelError
from bulkembed.records import Model, Pooling
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import matryoshka

Library = Literal["sentence-transformers", "transformers"]
Vectors = npt.NDArray[np.float32]
LIBRARIES: tuple[Library, ...] = ("sentence-transformers", "transformers")
PARTS = 4  # of every probe: its first quarter, half, three quarters, and all of it
MAX_TOKENS = 512  # of a comparison: a long document in float32 on a CPU takes minutes


def compare(library: Library, path: str, model: Model, cfg: RunConfig, tokenizer: Tokenizer, embedder: Embedder) -> Iterator[Check]:
    """One check for each probe: cosines of our vectors with the library's, and whether the token ids are the same."""
    prompt = cfg.prompt or ""
    probes = {**preflight.PROBES, "truncated": preflight.LONG_PROBE}
    texts = [text[: len(text) * part // PARTS] for text in probes.values() for part in range(1, PARTS + 1)]
    tokens = tokenizer.encode(texts, prompt)
    ours = embedder.embed([tokens.of(text) for text in range(len(texts))])
    ids, theirs = embed(library, path, model.pooling, tokenizer.max_tokens, [prompt + text for text in texts])
    cosines = matryoshka.cosines(ours, theirs).reshape(len(probes), PARTS)
    equal = np.array([tokens.of(text).tolist() == each for text, each in enumerate(ids)]).reshape(len(probes), PARTS)
    limit = preflight.ALIKE[cfg.engine.dtype]
    for name, found, same in zip(probes, cosines, equal, strict=True):
        what = f"cosine min {found.min():.7f} mean {found.mean():.7f}, tokens equal {int(same.sum())}/{PARTS}"
        yield Check(f"{library}: {name}", bool(found.min() >= limit and same.all()), what)


def embed(library: Library, path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """Token ids and vectors of texts, of norm 1. Raises ModelError where the library is not installed or cannot load the model."""
    command = [sys.executable, "-m", "bulkembed.embedding.reference", library, path, pooling, str(max_tokens)]
    result = subprocess.run(command, input=orjson.dumps(texts), capture_output=True, check=False)  # noqa: S603
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        raise ModelError(f"reference: {library} cannot embed with {path}: {lines[-1] if lines else 'no word why'}")
    answer = orjson.loads(result.stdout.splitlines()[-1])
    return answer["ids"], np.array(answer["vectors"], np.float32)


def by_sentence_transformers(path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """`pooling` is what the library reads from the model's files itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": torch.float32, "use_safetensors": True})
    loaded.max_seq_length = max_tokens
    vectors = loaded.encode(texts, prompt="", batch_size=16, normalize_embeddings=True)
    return loaded.tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"], np.asarray(vectors, np.float32)


def by_transformers(path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """The model's own forward pass and our pooling: one text at a time, so that nothing is padded."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    loaded = AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True).eval()
    ids = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    vectors = []
    with torch.inference_mode():
        for each in ids:
            pooled = preflight.POOL[pooling](loaded(torch.tensor([each])).last_hidden_state[0].numpy())
            vectors.append(pooled / np.linalg.norm(pooled))
    return ids, np.stack(vectors)


def main(library: str, path: str, pooling: Any, max_tokens: str) -> None:
    embed_with: dict[str, Callable[[str, Pooling, int, list[str]], tuple[list[list[int]], Vectors]]] = {
        "sentence-transformers": by_sentence_transformers,
        "transformers": by_transformers,
    }
    ids, vectors = embed_with[library](path, pooling, int(max_tokens), orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.write(orjson.dumps({"ids": ids, "vectors": vectors}, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
