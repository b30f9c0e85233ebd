"""Where the documents of a data file stand in the source: found by their keys, since rows keep no place there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from bulkembed.dataset.key_files import read_keys
from bulkembed.dataset.manifests import SourceVersion
from bulkembed.row_keys import Keys
from bulkembed.shards import Part, Shard
from bulkembed.source.objects import SourceObject
from bulkembed.storage.store import Store


class Origin(NamedTuple):
    """A row of the source, and the document of a file that was made of it. Origins sort in source order."""

    object_id: str
    row: int
    document: int  # index into the keys that were looked for


def origins_of(store: Store, output: str, line: str, sources: Iterable[SourceVersion], wanted: Keys) -> list[Origin]:
    """A source row for each document, in source order. A document without one is left out.

    It reads key files in turn until all are found. Documents of equal id and content get different rows."""
    open_documents: dict[bytes, list[int]] = defaultdict(list)
    for document, key in enumerate(row_bytes(wanted)):
        open_documents[key].append(document)
    found: list[Origin] = []
    for source in sources:
        if len(found) == len(wanted):
            break
        try:
            keys = read_keys(store, output, line, [source.object_id])
        except FileNotFoundError:
            continue  # its documents are left out, and counted by the caller
        keys = keys.take(np.isin(keys.contents[:, 0], wanted.contents[:, 0]))
        for row, key in zip(keys.rows.tolist(), row_bytes(keys), strict=True):
            if open_documents[key]:
                found.append(Origin(source.object_id, row, open_documents[key].pop()))
    return sorted(found)


def row_bytes(keys: Keys) -> list[bytes]:
    """Id and content of each document, as one value."""
    return [row.tobytes() for row in np.hstack([keys.ids, keys.contents])]


def shard_of_origins(origins: Sequence[Origin], objects: dict[str, SourceObject], rows: dict[str, int]) -> Shard:
    """The shard of these source rows, which are in source order. `rows`: of each whole object."""
    parts = []
    for object_id, group in groupby(origins, key=lambda origin: origin.object_id):
        item, picks = objects[object_id], tuple(origin.row for origin in group)
        start, stop = picks[0], picks[-1] + 1
        total = rows[object_id]
        parts.append(Part(item.id, item.uri, item.relative_path, item.version, item.format, start, stop, total, 0, start, picks))
    return Shard(tuple(parts))
