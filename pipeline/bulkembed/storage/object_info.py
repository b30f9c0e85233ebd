"""What a file system says of an object -> its version, its time, and the object in a listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from bulkembed.storage.listing import Entry, LeftOut, StoredObject, below

# Names that file systems give to what changes with an object's content, and to its time.
CONTENTS = ("version", "ETag", "etag", "blob_id", "sha", "Content-MD5", "Digest")  # local files, object stores, the hub, git, HTTP
TIMES = ("mtime", "LastModified", "updated", "last_modified", "Last-Modified", "modified", "created")
OTHER_TIMES = ("modificationTime", "modify", "last_write_time")  # in other units
VERSION_KEYS = {*CONTENTS, *TIMES, *OTHER_TIMES}  # any of these tells the version of an object


def version_of(info: Mapping[str, Any]) -> str:
    """A text that changes when the object's content does: its ETag, else its size and modification time.

    Empty where the store tells neither. A size alone does not show a new content."""
    content = next((info[name] for name in CONTENTS if info.get(name)), None)
    modified = next((info[name] for name in (*TIMES, *OTHER_TIMES) if info.get(name)), None)
    return str(content).strip('"') if content else f"{info['size']}-{modified}" if modified else ""


def modified_of(info: Mapping[str, Any]) -> float | None:
    """When the object was written, in Unix seconds by the store's clock; None where the store does not say."""
    value = next((info[name] for name in TIMES if info.get(name)), None)
    if isinstance(value, str):  # of Google, or a header of HTTP, in which some servers write no date
        try:
            value = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)
        except ValueError:
            return None
    return value.timestamp() if isinstance(value, datetime) else value


def left_out_name(entry: Entry, root: str, uri_of: Callable[[str], str]) -> LeftOut:
    """`uri_of` may lose the slash at the end of a folder."""
    slash = "/" if entry.path.endswith("/") else ""
    return LeftOut(uri_of(entry.path).rstrip("/") + slash, below(entry.path, root), entry.reason)


def stored_object(entry: Entry, root: str, uri_of: Callable[[str], str]) -> StoredObject:
    info = entry.info
    return StoredObject(uri_of(entry.path), below(entry.path, root), int(info["size"] or 0), version_of(info), modified_of(info))
