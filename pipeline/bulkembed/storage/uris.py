"""URIs of places: joined, made absolute, and in one spelling for comparing."""

from __future__ import annotations

import os

from fsspec.implementations.local import LocalFileSystem

from bulkembed.storage.local_paths import absolute_place

SAME_PROTOCOL = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs", "local": "file"}  # other names of one file system


def join(root: str, *parts: str) -> str:
    return "/".join((root.rstrip("/"), *parts))


def absolute(uri: str) -> str:
    """A place or a pattern that every process understands alike. Symbolic links, and `..` after them, are kept as they were given."""
    place = absolute_place(uri)
    return place.rstrip("/") if "://" in place else place


def canonical(uri: str) -> str:
    """One spelling for all spellings of a place, so that two places can be compared. `*` and `?` have no meaning here."""
    protocol, separator, path = uri.partition("://")
    protocol = SAME_PROTOCOL.get(protocol, protocol) if separator else "file"
    if protocol == "file":
        return os.path.realpath(str(LocalFileSystem._strip_protocol(uri)))
    if protocol == "abfs":  # container@account.host/path is container/path
        container, slash, rest = path.partition("/")
        path = container.partition("@")[0] + slash + rest
    return f"{protocol}://{path}".rstrip("/")
