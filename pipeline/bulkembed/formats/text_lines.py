"""An open object -> its lines, however long one of them is, and where reading may begin in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from bulkembed.scans import Layout

PART_LINES = 1024  # rows of a part of lines
MAX_LINE_BYTES = 64 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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


def seek_first_line(file: BinaryIO) -> int:
    """Moves the file to its first line, after a byte order mark, and returns that byte offset."""
    file.seek(0)
    return file.tell() if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else file.seek(0)


class LineIndex:
    """One pass over the non-blank lines of an object. It remembers where every `PART_LINES`-th of them starts."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.part_rows: list[int] = []
        self.part_bytes: list[int] = []
        self.offsets: list[int] = []
        self.lines = self._lines()  # each non-blank line with its length in bytes

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        offset, rows = seek_first_line(self.file), 0
        for line, length in read_lines(self.file):
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
        return Layout(self.part_rows, self.part_bytes, self.offsets, None)
