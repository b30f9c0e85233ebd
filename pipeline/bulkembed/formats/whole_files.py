"""Files that are read at any place: plain ones as they lie in the store, compressed ones as a temporary copy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from bulkembed.storage.compression import BUFFER_BYTES, HEAD_BYTES, codec_in, codec_of, decompressed
from bulkembed.storage.store import Store

FIRST_BYTES = (b"PAR1", b"ARROW1")  # a file that begins so is not compressed, whatever its name says: pandas writes x.parquet.gzip


@contextmanager
def open_whole(open_plain: Callable[[str, str], BinaryIO], store: Store, uri: str, version: str) -> Iterator[BinaryIO]:
    """A seekable file. `open_plain`: how the store opens it where it is not compressed.

    A compressed file is decompressed whole, each time."""
    if codec_of(uri)[1] is None:
        with open_plain(uri, version) as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy:
        if copy_decompressed(store, uri, version, cast(BinaryIO, copy)):
            yield cast(BinaryIO, copy)
        else:
            with open_plain(uri, version) as file:
                yield file


def copy_decompressed(store: Store, uri: str, version: str, copy: BinaryIO) -> bool:
    """Whether the file is compressed. Writes its decompressed bytes to `copy`."""
    with store.open_stream(uri, version) as raw:
        head = raw.peek(HEAD_BYTES)
        codec = None if head.startswith(FIRST_BYTES) else codec_in(head, codec_of(uri)[1])
        if codec:
            shutil.copyfileobj(decompressed(raw, codec, uri), copy, BUFFER_BYTES)
            copy.seek(0)
    return codec is not None
