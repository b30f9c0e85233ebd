"""A source object -> its decompressed text, its lines, however long one of them is, and where reading may begin in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Generic, TypeVar

import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.formats import rows
from bulkembed.formats.first_bytes import KIND_BYTES, foreign_kind
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.compression import HEAD_BYTES, codec_in, codec_of, decompressed
from bulkembed.storage.store import Store

T = TypeVar("T")

PART_ROWS = 1024  # rows of a part of the layout
MAX_LINE_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TextFile:
    """An open object of text, decompressed, behind its byte order mark."""

    file: io.BufferedReader
    offset: int  # of the next byte in the decompressed object
    line_end: bytes
    can_start_inside: bool  # False where only the start of the object tells how it is compressed, or how its lines end

    @property
    def lines(self) -> Iterator[tuple[bytes, int]]:
        return read_lines(self.file) if self.line_end == b"\n" else read_lines_to(self.file, self.line_end)


@contextmanager
def open_text(store: Store, uri: str, version: str, expected_bytes: int = 0, offset: int = 0) -> Iterator[TextFile]:
    """A text object, open at `offset`, which is 0 or a line start that a layout gave.

    `expected_bytes`: an estimate of what will be read behind `offset`; 0 where that is unknown.

    Raises ObjectError where it is compressed in a way that this installation does not know."""
    named = codec_of(uri)[1]
    # A compressed object is always read from its start, so that the estimate says nothing.
    with store.open_stream(uri, version, 0 if named else expected_bytes) as raw:
        codec = named if offset else codec_in(raw.peek(HEAD_BYTES), named)
        file = decompressed(raw, codec, uri) if codec else raw
        if offset:
            skip_bytes(file, offset) if codec else file.seek(offset)
            yield TextFile(file, offset, b"\n", True)
            return
        head = file.peek(CHUNK_BYTES)
        mark = file.read(len(BYTE_ORDER_MARK)) if head.startswith(BYTE_ORDER_MARK) else b""
        line_end = b"\n" if b"\n" in head or b"\r" not in head[:-1] else b"\r"
        yield TextFile(file, len(mark), line_end, codec == named and line_end == b"\n")


def require_text(text: TextFile, uri: str) -> None:
    """Raises ObjectError where a file begins as UTF-16 does, or as a file that is no text: its lines would be rejects, or no rows."""
    head = text.file.peek(KIND_BYTES)[:KIND_BYTES]
    if head.startswith(UTF_16_MARKS):
        raise ObjectError(f"{uri}: is UTF-16; convert it to UTF-8, as iconv -f UTF-16 -t UTF-8 does")
    foreign = foreign_kind(head, "text")
    if foreign:
        raise ObjectError(f"{uri}: {foreign}, or name a source without it")


def skip_bytes(file: BinaryIO, count: int | None = None) -> int:
    """Reads so many bytes, or all that there are, and drops them. Returns how many these were."""
    skipped = 0
    while chunk := file.read(CHUNK_BYTES if count is None else min(count - skipped, CHUNK_BYTES)):
        skipped += len(chunk)
    return skipped


def read_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line with its length in bytes.

    A line longer than MAX_LINE_BYTES comes empty, with its true length. An archive of a few kilobytes can hold one line that is
    larger than memory."""
    while line := file.readline(MAX_LINE_BYTES):
        length = len(line)
        if length < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line, length
            continue
        while more := file.readline(MAX_LINE_BYTES):
            length += len(more)
            if more.endswith(b"\n"):
                break
        yield b"", length


def read_lines_to(file: BinaryIO, end: bytes) -> Iterator[tuple[bytes, int]]:
    """As `read_lines`, for lines that end in the one byte `end`."""
    start, length = b"", 0  # of the line that is not at its end yet
    while chunk := file.read(CHUNK_BYTES):
        *pieces, rest = chunk.split(end)
        for piece in pieces:
            length += len(piece) + 1
            yield (start + piece + end if length <= MAX_LINE_BYTES else b""), length
            start, length = b"", 0
        length += len(rest)
        start = start + rest if length <= MAX_LINE_BYTES else b""
    if length:
        yield start, length


class RowIndex(Generic[T]):
    """One pass over the records of an object. It remembers where every `PART_ROWS`-th row starts."""

    def __init__(self, text: TextFile, records: Iterator[tuple[T, int]], is_blank: Callable[[T], bool], schema: pa.Schema | None) -> None:
        """`records`: with their lengths in bytes. One that is blank is no row. `schema`: of the layout."""
        self.text, self.records, self.is_blank, self.schema = text, records, is_blank, schema
        self.part_rows: list[int] = []
        self.part_bytes: list[int] = []
        self.offsets: list[int] = []
        self.rows = self._rows()  # each row with its length in bytes

    def _rows(self) -> Iterator[tuple[T, int]]:
        offset, rows = self.text.offset, 0
        is_blank = self.is_blank
        for record, length in self.records:
            if not is_blank(record):
                if rows % PART_ROWS == 0:
                    self.part_rows.append(0)
                    self.part_bytes.append(0)
                    self.offsets.append(offset)
                self.part_rows[-1] += 1
                self.part_bytes[-1] += length
                rows += 1
                yield record, length
            offset += length

    def read_rest(self) -> None:
        for _ in self.rows:
            pass

    def layout(self) -> Layout:
        """The layout of the rows that were read."""
        return Layout(self.part_rows, self.part_bytes, self.offsets if self.text.can_start_inside else [], self.schema)


def batches_of(records: Iterable[tuple[T, int]]) -> Iterator[list[tuple[T, int]]]:
    """Records in batches of at most BATCH_ROWS, and of one record more than BATCH_BYTES at most. They come with their lengths."""
    batch: list[tuple[T, int]] = []
    size = 0
    for record in records:
        batch.append(record)
        size += min(record[1], MAX_LINE_BYTES)
        if len(batch) == rows.BATCH_ROWS or size >= rows.BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def part_records(records: Iterator[T], part: Part) -> Iterator[T]:
    """The rows of a part. `records`: the rows behind the part's offset."""
    between = islice(records, part.skip, part.skip + part.stop - part.start)
    if part.picks is None:
        return between
    picked = frozenset(part.picks)
    return (record for row, record in enumerate(between, part.start) if row in picked)
