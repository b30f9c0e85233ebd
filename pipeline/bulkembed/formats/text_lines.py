"""A source object -> its decompressed text, its lines, however long one of them is, and where reading may begin in it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from bulkembed.errors import ObjectError
from bulkembed.scans import Layout
from bulkembed.storage.compression import HEAD_BYTES, codec_in, codec_of, decompressed
from bulkembed.storage.store import Store

PART_LINES = 1024  # rows of a part of lines
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

    Raises ObjectError where it is compressed in a way that this installation does not know, or is UTF-16."""
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
        if head.startswith(UTF_16_MARKS):
            raise ObjectError(f"{uri}: is UTF-16; convert it to UTF-8, as iconv -f UTF-16 -t UTF-8 does")
        mark = file.read(len(BYTE_ORDER_MARK)) if head.startswith(BYTE_ORDER_MARK) else b""
        line_end = b"\n" if b"\n" in head or b"\r" not in head[:-1] else b"\r"
        yield TextFile(file, len(mark), line_end, codec == named and line_end == b"\n")


def skip_bytes(file: BinaryIO, count: int) -> None:
    while count and (skipped := len(file.read(min(count, CHUNK_BYTES)))):
        count -= skipped


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


class LineIndex:
    """One pass over the non-blank lines of an object. It remembers where every `PART_LINES`-th of them starts."""

    def __init__(self, text: TextFile) -> None:
        self.text = text
        self.part_rows: list[int] = []
        self.part_bytes: list[int] = []
        self.offsets: list[int] = []
        self.lines = self._lines()  # each non-blank line with its length in bytes

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        offset, rows = self.text.offset, 0
        for line, length in self.text.lines:
            if not line.isspace():
                if rows % PART_LINES == 0:
                    self.part_rows.append(0)
                    self.part_bytes.append(0)
                    self.offsets.append(offset)
                self.part_rows[-1] += 1
                self.part_bytes[-1] += length
                rows += 1
                yield line, length
            offset += length

    def read_rest(self) -> None:
        for _ in self.lines:
            pass

    def layout(self) -> Layout:
        """The layout of the lines that were read."""
        return Layout(self.part_rows, self.part_bytes, self.offsets if self.text.can_start_inside else [], None)
