"""Plain text: each file is one document. Its id is its path below the source, and its text is all that it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from bulkembed.formats.format import Format, ObjectVersion, Reading
from bulkembed.formats.rows import TextRows
from bulkembed.formats.text_lines import MAX_LINE_BYTES, open_text, skip_bytes
from bulkembed.records import Reasons
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.store import Store

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def layout(place: ObjectVersion, text_columns: Sequence[str]) -> Layout:
    with open_text(place.store, place.uri, place.version) as text:
        return Layout([1], [skip_bytes(text.file)], [], SCHEMA)


@contextmanager
def reading(place: ObjectVersion, names: Sequence[str], text_columns: Sequence[str]) -> Iterator[Reading]:
    rows, size = document(place.store, place.uri, place.version, place.path)
    yield Reading(SCHEMA, iter([rows]), lambda: Layout([1], [size], [], SCHEMA))


def part_rows(store: Store, part: Part, names: Sequence[str], row_bytes: float) -> TextRows:
    return document(store, part.uri, part.version, part.path)[0]


def document(store: Store, uri: str, version: str, path: str) -> tuple[TextRows, int]:
    """The one row of a file, and its size in bytes. A file of more than MAX_LINE_BYTES is a reject, as a longer line is."""
    reasons: Reasons = {}
    with open_text(store, uri, version) as text:
        raw = text.file.read(MAX_LINE_BYTES)
        size = len(raw) + skip_bytes(text.file)
    if size > len(raw):
        reasons[0] = ("line_too_long", f"a text of {size:,} bytes, more than {MAX_LINE_BYTES:,}")
        raw = b""
    try:
        content: str | bytes = raw.decode()
    except UnicodeDecodeError:
        content = raw
    return TextRows(1, {"id": [path], "text": [content]}, reasons), size


TEXT = Format("text", (), (), layout, reading, part_rows)
