"""Every format by its name, and the format that a file is of. To add a format, write its module and name it here."""

from __future__ import annotations

import posixpath

from bulkembed.formats.arrow_ipc import ARROW
from bulkembed.formats.delimited import CSV, TSV
from bulkembed.formats.format import Format
from bulkembed.formats.json_lines import JSON_LINES
from bulkembed.formats.parquet import PARQUET
from bulkembed.formats.plain_text import TEXT
from bulkembed.shards import FormatName
from bulkembed.storage.compression import codec_of

FORMATS: dict[FormatName, Format] = {known.name: known for known in (PARQUET, JSON_LINES, CSV, TSV, ARROW, TEXT)}
SUFFIXES: dict[str, FormatName] = {suffix: known.name for known in FORMATS.values() for suffix in known.suffixes}
FIRST_BYTES = 8  # enough to tell every format that first bytes tell


def format_named(uri: str) -> FormatName | None:
    """The format that the suffix names, in small or capital letters; the suffix of a compression is ignored."""
    return SUFFIXES.get(posixpath.splitext(codec_of(uri)[0])[1])


def format_in(head: bytes) -> FormatName | None:
    """The format of a file that begins with `head`, where that tells it."""
    return next((known.name for known in FORMATS.values() if known.first_bytes and head.startswith(known.first_bytes)), None)
