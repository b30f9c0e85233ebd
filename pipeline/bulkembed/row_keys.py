"""The keys of documents: three hashes of 128 bits each, of the id, of the text as embedded, and of the kept columns.

Two documents with equal keys are the same row of the output. A hash is BLAKE2b of the value's own bytes, so that no two values that
differ have one hash. It is the same in the source, once a column has the run's type, and in a data file that is read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.value_encoding import encode_rows, offsets_of, type_text

HASH_BYTES = 16
Hashes = npt.NDArray[np.uint64]  # (n, 2): 128 bits each
Selection = npt.NDArray[np.integer] | npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Keys:
    """The keys of n documents, and where each one is."""

    ids: Hashes
    contents: Hashes
    kept: Hashes
    rows: npt.NDArray[np.int64]  # (n,): row in its object or file
    owners: npt.NDArray[np.int32]  # (n,): index of that object or file

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, selection: Selection) -> Keys:
        """The keys at these indices, or where this mask holds."""
        return Keys(self.ids[selection], self.contents[selection], self.kept[selection], self.rows[selection], self.owners[selection])

    def owned_by(self, owner: int) -> Keys:
        """The same keys, of the object or file with this index."""
        return replace(self, owners=np.full(len(self), owner, np.int32))

    @staticmethod
    def empty() -> Keys:
        return Keys(no_hashes(), no_hashes(), no_hashes(), np.empty(0, np.int64), np.empty(0, np.int32))

    @staticmethod
    def concat(parts: Sequence[Keys]) -> Keys:
        """All keys in the order of the parts."""
        parts = [Keys.empty(), *parts]
        return Keys(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.contents for part in parts]),
            np.concatenate([part.kept for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.owners for part in parts]),
        )


def no_hashes() -> Hashes:
    return np.empty((0, 2), np.uint64)


def content_hashes(texts: Iterable[str]) -> Hashes:
    """The hashes of texts, by their UTF-8: what data files have as `content_hash`."""
    return from_digests([blake2b(text.encode(), digest_size=HASH_BYTES).digest() for text in texts])


def document_hashes(texts: Sequence[str], chunk_ends: Mapping[int, Sequence[int]]) -> Hashes:
    """As `content_hashes`. A text that came as a list of strings is hashed with the ends of these strings: see records.Documents.

    Two lists of the same characters therefore have two hashes."""
    digests = [blake2b(text.encode(), digest_size=HASH_BYTES).digest() for text in texts]
    for number, ends in chunk_ends.items():
        hasher = blake2b(np.array([len(ends), *ends], "<i8").tobytes(), digest_size=HASH_BYTES, person=b"list of strings")
        hasher.update(texts[number].encode())
        digests[number] = hasher.digest()
    return from_digests(digests)


def content_hashes_of_column(column: pa.ChunkedArray) -> Hashes:
    """As `content_hashes`, of a column of texts without nulls, 1.3 us a row of 300 bytes."""
    return concat_hashes(hash_binaries(chunk.cast(pa.large_binary()), b"") for chunk in column.chunks)


def id_hashes(column: pa.ChunkedArray) -> Hashes:
    """The hashes of ids in the run's type."""
    return row_hashes(pa.table([column], names=["id"]))


def kept_hashes(table: pa.Table, names: Sequence[str]) -> Hashes:
    """The hashes of these columns together, in the run's types. Without columns all hashes are zero."""
    return row_hashes(table.select(list(names))) if names else np.zeros((table.num_rows, 2), np.uint64)


def row_hashes(table: pa.Table) -> Hashes:
    """A hash of the values of each row. Types are part of it, and names are not. About 1.5 us a row of some 100 bytes."""
    types = blake2b("\n".join(type_text(field.type) for field in table.schema).encode(), digest_size=blake2b.PERSON_SIZE).digest()
    return concat_hashes(hash_binaries(encode_rows(batch.columns), types) for batch in table.to_batches())


def hash_binaries(array: pa.LargeBinaryArray, person: bytes) -> Hashes:
    """The hash of each binary. `person`: up to 16 bytes that set these hashes apart from others of the same binaries."""
    hasher = partial(blake2b, digest_size=HASH_BYTES, person=person) if person else partial(blake2b, digest_size=HASH_BYTES)
    data = memoryview(array.buffers()[2] or b"")
    return from_digests([hasher(data[start:stop]).digest() for start, stop in pairwise(offsets_of(array).tolist())])


def from_digests(digests: Sequence[bytes]) -> Hashes:
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)


def concat_hashes(parts: Iterable[Hashes]) -> Hashes:
    return np.concatenate([no_hashes(), *parts])


def hashes_of_column(column: pa.ChunkedArray) -> Hashes:
    """The hashes in a column of fixed_size_binary(16) without nulls."""
    if column.type != pa.binary(HASH_BYTES) or column.null_count:
        raise ValueError(f"a column of {column.type} with {column.null_count} nulls holds no hashes")
    return concat_hashes(
        np.frombuffer(chunk.buffers()[1], np.uint64)[2 * chunk.offset : 2 * (chunk.offset + len(chunk))].reshape(-1, 2)
        for chunk in column.chunks
        if len(chunk)
    )


def binary_of(hashes: Hashes) -> pa.Array:
    """The hashes as an array of fixed_size_binary(16)."""
    return pa.Array.from_buffers(pa.binary(HASH_BYTES), len(hashes), [None, pa.py_buffer(np.ascontiguousarray(hashes))])
