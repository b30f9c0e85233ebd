"""Keys and values on their way between the tasks of one run, by bucket: through the store, or in this process where they are few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from bulkembed.row_keys import Keys, binary_of, hashes_of_column
from bulkembed.runs.mapper import LocalMapper
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

REQUESTS = 16  # to the store at the same time, by one task


class Exchange(Protocol):
    """Keys by the name of a set, by bucket, and by the task that wrote them. A task that is repeated replaces its own."""

    def write(self, name: str, producer: int, buckets: Mapping[int, Keys]) -> None: ...

    def read(self, name: str, bucket: int) -> Keys:
        """All keys of one bucket, in the order of those who wrote them."""
        ...

    def write_tables(self, name: str, producer: int, buckets: Mapping[int, pa.Table]) -> None:
        """As `write`, of other values than keys."""
        ...

    def read_tables(self, name: str, bucket: int, schema: pa.Schema) -> pa.Table:
        """All tables of one bucket, in the order of those who wrote them."""
        ...

    def remove(self, *names: str) -> None:
        """Removes these sets, or everything where none is named."""
        ...


@dataclass(frozen=True)
class StoreExchange:
    """Blobs below `folder`, which belongs to one run: <folder>/<name>/<bucket>/<producer>.arrow."""

    store: Store
    folder: str

    def write(self, name: str, producer: int, buckets: Mapping[int, Keys]) -> None:
        self.write_tables(name, producer, {bucket: table_of(keys) for bucket, keys in buckets.items() if len(keys)})

    def read(self, name: str, bucket: int) -> Keys:
        return Keys.concat([keys_in(table) for table in self.tables(name, bucket)])

    def write_tables(self, name: str, producer: int, buckets: Mapping[int, pa.Table]) -> None:
        def put(bucket: int) -> None:
            self.store.put(join(self.folder_of(name, bucket), f"{producer:08d}.arrow"), arrow_bytes(buckets[bucket]))

        for _ in LocalMapper(REQUESTS).map(put, buckets):
            pass

    def read_tables(self, name: str, bucket: int, schema: pa.Schema) -> pa.Table:
        return pa.concat_tables([schema.empty_table(), *self.tables(name, bucket)])

    def tables(self, name: str, bucket: int) -> Iterator[pa.Table]:
        folder = self.folder_of(name, bucket)
        return LocalMapper(REQUESTS).map(self.table_at, [join(folder, blob) for blob in self.store.names(folder)])

    def remove(self, *names: str) -> None:
        for folder in [join(self.folder, name) for name in names] or [self.folder]:
            self.store.delete_folder(folder)

    def folder_of(self, name: str, bucket: int) -> str:
        return join(self.folder, name, f"{bucket:06d}")

    def table_at(self, uri: str) -> pa.Table:
        return arrow_table(self.store.read(uri))


@dataclass(frozen=True)
class MemoryExchange:
    """The same in this process."""

    held: dict[tuple[str, int], dict[int, Keys]] = field(default_factory=dict)
    tables: dict[tuple[str, int], dict[int, pa.Table]] = field(default_factory=dict)

    def write(self, name: str, producer: int, buckets: Mapping[int, Keys]) -> None:
        for bucket, keys in buckets.items():
            self.held.setdefault((name, bucket), {})[producer] = keys

    def read(self, name: str, bucket: int) -> Keys:
        written = self.held.get((name, bucket), {})
        whole = Keys.concat([written[producer] for producer in sorted(written)])
        if written:
            self.held[name, bucket] = {0: whole}  # in place of its parts, which would take as much again
        return whole

    def write_tables(self, name: str, producer: int, buckets: Mapping[int, pa.Table]) -> None:
        for bucket, table in buckets.items():
            self.tables.setdefault((name, bucket), {})[producer] = table

    def read_tables(self, name: str, bucket: int, schema: pa.Schema) -> pa.Table:
        written = self.tables.get((name, bucket), {})
        return pa.concat_tables([schema.empty_table(), *(written[producer] for producer in sorted(written))])

    def remove(self, *names: str) -> None:
        for kind in (self.held, self.tables):
            for place in [place for place in kind if not names or place[0] in names]:
                del kind[place]


def bytes_of(keys: Keys) -> bytes:
    """Keys as one Arrow file. 60 bytes a row: hashes neither repeat nor compress."""
    return arrow_bytes(table_of(keys))


def keys_of(data: bytes) -> Keys:
    """What `bytes_of` made the bytes of."""
    return keys_in(arrow_table(data))


def table_of(keys: Keys) -> pa.Table:
    return pa.table(
        {
            "id": binary_of(keys.ids),
            "content": binary_of(keys.contents),
            "kept": binary_of(keys.kept),
            "row": keys.rows,
            "owner": keys.owners,
        }
    )


def keys_in(table: pa.Table) -> Keys:
    ids, contents, kept = (hashes_of_column(table[name]) for name in ("id", "content", "kept"))
    return Keys(ids, contents, kept, table["row"].to_numpy(), table["owner"].to_numpy())


def arrow_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def arrow_table(data: bytes) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()
