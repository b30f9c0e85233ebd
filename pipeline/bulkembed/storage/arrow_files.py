"""A store as a file system of pyarrow."""

from __future__ import annotations

from collections.abc import Sequence

import fsspec
import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem

from bulkembed.storage.store import Store


def arrow_filesystem(store: Store, uris: Sequence[str]) -> tuple[pafs.FileSystem, list[str]]:
    """A file system for these URIs, which have one protocol, and their paths in it.

    It retries as fsspec does by default: pyarrow's readers do not retry."""
    protocol, separator, _ = uris[0].partition("://")
    is_local = not separator or protocol in ("file", "local")
    filesystem = LocalFileSystem() if is_local else fsspec.filesystem(protocol, **store.chosen)
    paths = [filesystem._strip_protocol(uri) for uri in uris]
    return pafs.LocalFileSystem() if is_local else pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), paths
