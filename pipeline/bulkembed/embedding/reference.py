"""Compares our vectors with those of sentence-transformers and transformers, in float32 on the CPU.

The libraries run in another process (`python -m bulkembed.embedding.reference`), which takes texts and returns vectors
as JSON. Only this module imports them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from bulkembed.config.recipe import VectorKey
from bulkembed.embedding import model_modules, preflight
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.preflight import Check
from bulkembed.errors import ModelError
from bulkembed.records import Model, Pooling
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import matryoshka

Library = Literal["sentence-transformers", "transformers"]
Vectors = npt.NDArray[np.float32]
LIBRARIES: tuple[Library, ...] = ("sentence-transformers", "transformers")
PARTS = 4  # lengths of every probe: its first quarter, half, three quarters, and all of it
MAX_TOKENS = 512  # of a compared text: a long one takes minutes in float32 on a CPU


def compare_vectors(library: Library, path: str, model: Model, key: VectorKey, tokenizer: Tokenizer, embedder: Embedder) -> Iterator[Check]:
    """One check for each probe: our vectors have the library's direction, and our token ids are the library's."""
    prompt = key.prompt
    probes = {**preflight.PROBES, "truncated": preflight.LONG_PROBE}
    texts = [text[: len(text) * part // PARTS] for text in probes.values() for part in range(1, PARTS + 1)]
    tokens = tokenizer.encode(texts, prompt)
    ours = embedder.embed([tokens.of(text) for text in range(len(texts))])
    ids, theirs = reference_vectors(library, path, model.pooling, tokenizer.max_tokens, [prompt + text for text in texts])
    cosines = matryoshka.cosines(ours, theirs).reshape(len(probes), PARTS)
    same_ids = np.array([tokens.of(text).tolist() == their_ids for text, their_ids in enumerate(ids)]).reshape(len(probes), PARTS)
    min_cosine = preflight.MIN_EQUAL_COSINE[key.engine_dtype]
    for name, row, same in zip(probes, cosines, same_ids, strict=True):
        detail = f"cosine min {row.min():.7f} mean {row.mean():.7f}, tokens equal {int(same.sum())}/{PARTS}"
        yield Check(f"{library}: {name}", bool(row.min() >= min_cosine and same.all()), detail)


def reference_vectors(library: Library, path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """The library's token ids and unit vectors of texts. Raises ModelError where it is not installed or cannot load the model."""
    command = [sys.executable, "-m", "bulkembed.embedding.reference", library, path, pooling, str(max_tokens)]
    result = subprocess.run(command, input=orjson.dumps(texts), capture_output=True, check=False)  # noqa: S603
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        raise ModelError(f"reference: {library} cannot embed with {path}: {lines[-1] if lines else 'no word why'}")
    answer = orjson.loads(result.stdout.splitlines()[-1])
    return answer["ids"], np.array(answer["vectors"], np.float32)


def sentence_transformers_vectors(path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """The library reads the pooling from the model's files, so it ignores `pooling`."""
    import torch
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(path, device="cpu", model_kwargs={"dtype": torch.float32, "use_safetensors": True})
    loaded.max_seq_length = max_tokens
    vectors = loaded.encode(texts, prompt="", batch_size=16, normalize_embeddings=True)
    return loaded.tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"], np.asarray(vectors, np.float32)


def transformers_vectors(path: str, pooling: Pooling, max_tokens: int, texts: list[str]) -> tuple[list[list[int]], Vectors]:
    """The model's forward pass with our pooling and the model's linear layers, on one text at a time, so that nothing is padded."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    loaded = AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True).eval()
    ids = tokenizer(texts, truncation=True, max_length=max_tokens)["input_ids"]
    layers = dense_layers(Path(path))
    vectors = []
    with torch.inference_mode():
        for text_ids in ids:
            pooled = preflight.POOLING[pooling](loaded(torch.tensor([text_ids])).last_hidden_state[0].numpy())
            pooled = layers(torch.from_numpy(pooled)).numpy()
            vectors.append(pooled / np.linalg.norm(pooled))
    return ids, np.stack(vectors)


def dense_layers(folder: Path) -> Any:
    """The linear layers that modules.json lists, as one PyTorch module in float32."""
    from safetensors.torch import load_file
    from torch import nn

    steps: list[nn.Module] = []
    for module in model_modules.read_modules(folder):
        if module.kind == "Dense":
            tensors = load_file(folder / module.folder / model_modules.DENSE_WEIGHTS)
            linear = nn.Linear(*reversed(tensors["linear.weight"].shape), bias="linear.bias" in tensors)
            linear.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in tensors.items()})
            activation = model_modules.module_settings(folder, module).text("activation_function")
            steps += [linear, nn.Identity() if activation == model_modules.NO_ACTIVATION else nn.Tanh()]
    return nn.Sequential(*steps)


def main(library: str, path: str, pooling: Any, max_tokens: str) -> None:
    libraries: dict[str, Callable[[str, Pooling, int, list[str]], tuple[list[list[int]], Vectors]]] = {
        "sentence-transformers": sentence_transformers_vectors,
        "transformers": transformers_vectors,
    }
    ids, vectors = libraries[library](path, pooling, int(max_tokens), orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.write(orjson.dumps({"ids": ids, "vectors": vectors}, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
