"""The name of an object -> its compression, and a compressed file -> its decompressed bytes."""

from __future__ import annotations

import posixpath
from typing import Any, BinaryIO

from backports import zstd
from fsspec.compression import compr

CODECS = {".gz": "gzip", ".zst": "zstd"}
MAX_ZSTD_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}  # 2 GiB: archives that `zstd --long=31` made


def codec_of(uri: str) -> tuple[str, str | None]:
    """The name of an object in small letters without the suffix of its compression, and that compression."""
    name = (uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri).lower()
    stem, suffix = posixpath.splitext(name)
    return (stem, CODECS[suffix]) if suffix in CODECS else (name, None)


def decompress(file: BinaryIO, codec: str | None) -> Any:
    if codec == "zstd":
        return zstd.ZstdFile(file, options=MAX_ZSTD_WINDOW)
    return compr[codec](file, mode="r")
