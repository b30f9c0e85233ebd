"""Token ids of the documents that rows embed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = list[npt.NDArray[np.int32]]


def ids_of(tokenizer: Any, texts: list[str]) -> Ids:
    return [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch_fast(texts)]


def save_ids(path: Path, documents: Ids) -> None:
    np.savez(path, flat=np.concatenate(documents), lengths=np.array([len(ids) for ids in documents]))


def load_ids(path: Path) -> Ids:
    with np.load(path) as saved:
        return np.split(saved["flat"], np.cumsum(saved["lengths"])[:-1])


def random_ids(vocabulary: int, documents: int, tokens: int) -> Ids:
    """Documents of equal length with random token ids."""
    return list(np.random.default_rng(tokens).integers(300, vocabulary, (documents, tokens), np.int32))
