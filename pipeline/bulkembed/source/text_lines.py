"""An open object -> its lines, however long one of them is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

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
