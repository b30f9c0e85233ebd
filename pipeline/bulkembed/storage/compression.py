"""The name and the first bytes of an object -> its compression, and a compressed file -> its decompressed bytes."""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
import re
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from backports import zstd
from fsspec.compression import compr

from bulkembed.errors import ObjectError

CODECS = {
    **{".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz"},
    **{".lzma": "lzma", ".lz4": "lz4", ".snappy": "snappy", ".sz": "snappy", ".zip": "zip"},
}
READ_SUFFIXES = [suffix for suffix, codec in CODECS.items() if codec != "snappy"]  # see `decompressed`
HEAD_BYTES = 10  # enough to tell every codec
FIRST_BYTES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
    (re.compile(rb"\x04\x22\x4d\x18"), "lz4"),
    (re.compile(rb"\xff\x06\x00\x00sNaPpY"), "snappy"),
    (re.compile(rb"PK\x03\x04"), "zip"),
)
BUFFER_BYTES = 1 << 20
MAX_ZSTD_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}  # 2 GiB: archives that `zstd --long=31` made
# What a damaged compressed file raises, beside OSError and EOFError.
DAMAGED = (lzma.LZMAError, zstd.ZstdError, zipfile.BadZipFile)


class Decompressor(Protocol):
    """What bz2 and lzma have."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def codec_of(uri: str) -> tuple[str, str | None]:
    """The name of an object in small letters without the suffix of its compression, and that compression."""
    name = (uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri).lower()
    stem, suffix = posixpath.splitext(name)
    return (stem, CODECS[suffix]) if suffix in CODECS else (name, None)


def codec_in(head: bytes, named: str | None) -> str | None:
    """The compression of a file that begins with `head`. Where its bytes tell none it is the one of its name; an empty file has none."""
    return next((codec for pattern, codec in FIRST_BYTES if pattern.match(head)), named if head else None)


def decompressed(file: BinaryIO, codec: str | None, uri: str) -> io.BufferedReader:
    """A file of the decompressed bytes, to read from its start. Raises ObjectError where this installation cannot decompress it."""
    if codec == "zstd":
        raw: Any = zstd.ZstdFile(file, options=MAX_ZSTD_WINDOW)
    elif codec == "bz2":
        raw = MemberReader(file, bz2.BZ2Decompressor)
    elif codec in ("xz", "lzma"):
        raw = MemberReader(file, lzma.LZMADecompressor)
    elif codec == "zip":
        raw = only_member(file, uri)
    elif codec == "lz4" and codec in compr:
        raw = Lz4Reader(compr[codec](file, mode="r"))
    elif codec == "gzip":
        raw = compr[codec](file, mode="r")
    elif codec == "lz4":
        raise ObjectError(f"{uri}: is compressed with lz4, which needs a package that is not installed: pip install lz4")
    else:  # python-snappy takes a file that is cut for a whole one
        raise ObjectError(
            f"{uri}: is compressed with {codec}, which is not read, since a file that is cut cannot be noticed; use gzip or zstd"
        )
    return io.BufferedReader(cast(Any, raw), BUFFER_BYTES)


class MemberReader(io.RawIOBase):
    """The decompressed bytes of the members of a file, one after the other.

    Python's own files end at a second member that is damaged, as if it were not there."""

    def __init__(self, file: BinaryIO, make: Callable[[], Decompressor]) -> None:
        self.file, self.make = file, make
        self.decompressor: Decompressor | None = None  # of the member that is being read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            if self.decompressor is None or self.decompressor.eof:
                rest = self._next_member(b"" if self.decompressor is None else self.decompressor.unused_data)
                if not rest:
                    return 0
                self.decompressor = self.make()
            elif self.decompressor.needs_input:
                rest = self.file.read(BUFFER_BYTES)
                if not rest:
                    raise EOFError("the file ends within its compressed data")
            else:
                rest = b""
            data = self.decompressor.decompress(rest, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next_member(self, rest: bytes) -> bytes:
        """The first bytes behind a member, without the zeros that fill a block; empty at the end of the file."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self.file.read(BUFFER_BYTES)
            if not rest:
                break
        return rest


class Lz4Reader(io.RawIOBase):
    """What an open lz4 file gives. It raises RuntimeError for damage."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except RuntimeError as error:
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)


def only_member(file: BinaryIO, uri: str) -> Any:
    """The file in a ZIP archive. Raises ObjectError where it has none or several."""
    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ObjectError(f"{uri}: is a ZIP archive of {len(names)} files; only an archive of one file is read: unpack it")
    return archive.open(names[0])
