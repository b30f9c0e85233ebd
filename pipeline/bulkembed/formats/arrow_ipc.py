"""Arrow IPC: files (Feather version 2), cut at their record batches, and streams, as Hugging Face datasets lie on disk.

The offset of a part is the number of a record batch in a file, and the byte at which a record batch starts in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.formats.format import Format, ObjectVersion, Reading, reading_of, require_names
from bulkembed.formats.paths import Path, array_at, columns_at, paths_of, schema_at, with_paths
from bulkembed.formats.rows import ArrowRows, batches_with_rows, rows_of_a_batch, take_rows
from bulkembed.formats.whole_files import open_whole
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.store import Store

FILE_MARK, FEATHER_1_MARK = b"ARROW1", b"FEA1"
# What Arrow says of text that is not UTF-8, of times of day beyond 24 hours, of dates within a day, and of decimals with too many digits.
OF_SINGLE_ROWS = ("UTF8", "acceptable range", "whole number of days", "does not fit in precision")
END_BYTES = 8  # of the mark that ends a stream


@dataclass(frozen=True)
class Batches:
    """The record batches of an open object."""

    schema: pa.Schema
    batches: Iterator[tuple[int, pa.RecordBatch]]  # each with its offset
    can_start_inside: bool  # whether reading may begin at an offset


class BatchIndex:
    """One pass over the record batches of an object. It remembers their rows, sizes and offsets."""

    def __init__(self, found: Batches, text_columns: Sequence[str]) -> None:
        self.found = found
        self.texts = paths_of(found.schema, text_columns)
        self.known = Layout([], [], [], found.schema)
        self.batches = self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for offset, batch in self.found.batches:
            self.known.part_rows.append(batch.num_rows)
            self.known.part_bytes.append(sum(array_at(batch, path).nbytes for path in self.texts.values()))
            self.known.offsets.extend([offset] if self.found.can_start_inside else [])
            yield batch

    def layout(self) -> Layout:
        """The layout of the batches that were read."""
        return self.known


def layout(place: ObjectVersion, text_columns: Sequence[str]) -> Layout:
    """The layout by reading the whole object."""
    with opened(place.store, place.uri, place.version, text_columns) as found:
        index = BatchIndex(found, text_columns)
        for _ in index.batches:
            continue
        return index.layout()


@contextmanager
def reading(place: ObjectVersion, names: Sequence[str], text_columns: Sequence[str]) -> Iterator[Reading]:
    with opened(place.store, place.uri, place.version, names) as found:
        index = BatchIndex(found, text_columns)
        paths = paths_of(found.schema, names)
        chosen = schema_at(found.schema, paths)
        rows = (ArrowRows(piece, pa.table({})) for batch in index.batches for piece in pieces(checked(batch, paths, chosen)))
        yield reading_of(with_paths(found.schema, names), rows, index.layout)


def pieces(batch: pa.RecordBatch) -> Iterator[pa.Table]:
    """The batch in tables that are no larger than a batch of a reading may be."""
    table = pa.Table.from_batches([batch])
    count = rows_of_a_batch(batch.num_rows, batch.nbytes)
    yield from (table.slice(first, count) for first in range(0, batch.num_rows, count))


def part_rows(store: Store, part: Part, names: Sequence[str], row_bytes: float) -> ArrowRows:
    with opened(store, part.uri, part.version, names, part.offset) as found:
        paths = paths_of(found.schema, names)
        chosen = schema_at(found.schema, paths)
        wanted = np.array(part.object_rows, np.int64) - part.start + part.skip  # rows behind the offset
        picked = batches_with_rows((batch for _, batch in found.batches), wanted)
        batches = [take_rows(checked(batch, paths, chosen), numbers) for batch, numbers in picked]
        return ArrowRows(pa.Table.from_batches(batches, chosen), pa.table({}))


def checked(batch: pa.RecordBatch, paths: Mapping[str, Path], schema: pa.Schema) -> pa.RecordBatch:
    """The columns at these paths. `schema`: theirs.

    Raises ArrowInvalid where buffers do not fit together, which Arrow does not check as it reads.
    Values that are none of their type pass: they are a matter of single rows."""
    for name in {path[0] for path in paths.values()}:
        column = batch.column(name)
        raw = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
        try:
            (column.view(raw) if raw else column).validate(full=True)
        except pa.ArrowInvalid as error:
            if not any(words in str(error) for words in OF_SINGLE_ROWS):
                raise
    return columns_at(batch, paths, schema)


@contextmanager
def opened(store: Store, uri: str, version: str, names: Sequence[str], offset: int = 0) -> Iterator[Batches]:
    """The record batches from an offset on; of a file those of the columns `names` alone.

    Raises ObjectError where a column is there twice, or where the object is in the format Feather version 1."""
    with open_whole(store.open_stream, store, uri, version) as file:
        mark = file.read(len(FILE_MARK))
        file.seek(0)
        if mark.startswith(FEATHER_1_MARK):
            raise ObjectError(f"{uri}: is Feather version 1; write it again as version 2, or as Parquet")
        if not mark:
            yield Batches(pa.schema([]), iter(()), False)
            return
        found = file_batches(file, names, offset) if mark == FILE_MARK else stream_batches(file, offset)
        require_names(found.schema.names, [path[0] for path in paths_of(found.schema, names).values()], uri)
        yield found


def file_batches(file: BinaryIO, names: Sequence[str], first: int) -> Batches:
    schema = pa.ipc.open_file(file).schema
    heads = {path[0] for path in paths_of(schema, names).values()}
    included = [number for number, name in enumerate(schema.names) if name in heads]
    reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=included or None))
    return Batches(schema, ((number, reader.get_batch(number)) for number in range(first, reader.num_record_batches)), True)


def stream_batches(file: BinaryIO, offset: int) -> Batches:
    schema = pa.ipc.read_schema(pa.PythonFile(file, "r"))
    if any(has_dictionary(kind) for kind in schema.types):
        file.seek(0)
        return Batches(schema, batches_from_start(file), False)
    file.seek(offset or file.tell())
    return Batches(schema, batches_from(file, schema), True)


def has_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(has_dictionary(kind.field(number).type) for number in range(kind.num_fields))


def batches_from(file: BinaryIO, schema: pa.Schema) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The record batches of a stream without dictionaries."""
    source = pa.PythonFile(file, "r")
    while True:
        at = file.tell()
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            require_end(file, at)
            return
        yield at, pa.ipc.read_record_batch(message, schema)


def batches_from_start(file: BinaryIO) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The record batches of a stream whose dictionaries may come between them."""
    reader = pa.ipc.open_stream(file)
    while True:
        at = file.tell()
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            require_end(file, at)
            return
        yield at, batch


def require_end(file: BinaryIO, at: int) -> None:
    """Raises EOFError where a stream that Arrow takes for finished has no end mark, or has bytes behind it."""
    if file.tell() - at != END_BYTES:
        raise EOFError("the stream ends without its end mark: it was cut, or its writer was not closed")
    if file.read(1):
        raise EOFError("there are bytes behind the end of the stream")


ARROW = Format("arrow", (".arrow", ".feather", ".ipc", ".arrows"), (FILE_MARK,), layout, reading, part_rows)
