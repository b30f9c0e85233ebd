"""Keys of documents from small numbers, and back: tiny universes, in which rows repeat, move and swap their texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from bulkembed.row_keys import Hashes, Keys


class Document(NamedTuple):
    """The key of a document in numbers."""

    id: int
    content: int
    kept: int


def documents(ids: int = 3, contents: int = 3, max_size: int = 12) -> st.SearchStrategy[list[Document]]:
    """Lists of documents of a tiny universe."""
    return st.lists(st.builds(Document, st.integers(0, ids), st.integers(0, contents), st.integers(0, 1)), max_size=max_size)


def hashes(numbers: Iterable[int]) -> Hashes:
    """A hash for each number. Some differ in one word alone."""
    return np.array([(number // 2, number % 2) for number in numbers], np.uint64).reshape(-1, 2)


def keys(documents: Sequence[Document], rows_per_owner: int = 4, first_owner: int = 0) -> Keys:
    """The keys of documents that lie in objects of so many rows."""
    places = np.arange(len(documents))
    return Keys(
        hashes(document.id for document in documents),
        hashes(document.content for document in documents),
        hashes(document.kept for document in documents),
        places % rows_per_owner,
        (places // rows_per_owner + first_owner).astype(np.int32),
    )


def documents_of(keys: Keys) -> list[Document]:
    """The documents that `keys` were made of."""
    columns = (column[:, 0].astype(int) * 2 + column[:, 1].astype(int) for column in (keys.ids, keys.contents, keys.kept))
    return [Document(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]


def places_of(keys: Keys) -> list[tuple[int, int]]:
    """(owner, row) of each."""
    return list(zip(keys.owners.tolist(), keys.rows.tolist(), strict=True))
