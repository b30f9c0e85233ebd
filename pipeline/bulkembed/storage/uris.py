"""URIs of places: joined, made absolute, and in one spelling for comparing."""

from __future__ import annotations

import os

from bulkembed.storage.local_paths import absolute_place

SAME_PROTOCOL = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs", "local": "file"}  # other names of one file system
WEB = {"http", "https"}


def join(root: str, *parts: str) -> str:
    return "/".join((root.rstrip("/"), *parts))


def absolute(uri: str) -> str:
    """A place or a pattern that every process understands alike. Symbolic links, and `..` after them, are kept as they were given."""
    place = absolute_place(uri)
    return place.rstrip("/") if "://" in place else place


def canonical(uri: str) -> str:
    """One spelling for all spellings of a place, so that two places can be compared. `*` and `?` have no meaning here."""
    uri = absolute_place(uri)
    protocol, separator, path = uri.partition("://")
    protocol = SAME_PROTOCOL.get(protocol, protocol) if separator else "file"
    if protocol == "file":
        return os.path.realpath(uri)
    authority, slash, rest = path.partition("/")
    if protocol == "abfs":  # container@account.host/path is container/path
        authority = authority.partition("@")[0]
    elif protocol in WEB:  # hosts are the same in capital letters
        authority = authority.lower()
    return f"{protocol}://{authority}{slash}{rest}".rstrip("/")
