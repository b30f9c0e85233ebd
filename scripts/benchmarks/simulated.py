"""What rows with simulated devices need: documents of stated sizes, and the files of a model without real weights."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.benchmarks.material import WORK, model_folder, write_corpus
from scripts.samples import demo_corpus, random_qwen3

CHARACTERS = 1250  # of a document: about 300 tokens
DIMS = (2560, 1024)


def texts(sizes: list[int], step: int = CHARACTERS // 3) -> Iterator[str]:
    """Slices of the demo corpus with so many characters each, `step` apart. Closer slices overlap more, and compress better."""
    text = "\n\n".join(row["text"] for row in demo_corpus.documents())
    starts = itertools.cycle(range(0, len(text) - max(sizes), step))
    return (text[start : start + size] for start, size in zip(starts, sizes, strict=False))


def corpus(documents: int) -> Path:
    """One Parquet file with documents of CHARACTERS characters from the demo corpus."""
    place = WORK / f"simulated-{documents}"
    if not place.exists():
        write_corpus(place, range(documents), list(texts([CHARACTERS] * documents)))
    return place


def model(tokenizer: Path | None = None) -> Path:
    """The files of a model of 2,560 dimensions; its weights are never loaded."""
    place = WORK / f"Qwen3-Embedding-{'given' if tokenizer else 'trained'}-tokenizer"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(model_folder("42M"), place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"hidden_size": DIMS[0]}))
    random_qwen3.write_sentence_transformers_files(place, DIMS[0])
    if tokenizer:
        if not tokenizer.is_file():
            raise SystemExit(f"bench: --tokenizer {tokenizer}: no such file")
        (place / "tokenizer.json").write_text(
            json.dumps(with_end_token(json.loads(tokenizer.read_text(encoding="utf-8")))), encoding="utf-8"
        )
    return place


def with_end_token(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Qwen3's tokenizer.json with a rule that appends the end token, as the tokenizer of Qwen3-Embedding does."""
    token = random_qwen3.END
    number = next(added["id"] for added in tokenizer["added_tokens"] if added["content"] == token)
    text, last = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}
    rule: dict[str, Any] = {"type": "TemplateProcessing", "single": [text, last], "pair": [text, last]}
    return tokenizer | {"post_processor": rule | {"special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}}


def flags(max_tokens: int = 8192) -> list[str]:
    return ["--dims", ",".join(map(str, DIMS)), "--max-tokens", str(max_tokens)]
