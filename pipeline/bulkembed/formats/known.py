"""Every format by its name, and the format that the name of a file tells. To add a format, write its module and name it here."""

from __future__ import annotations

import posixpath

from bulkembed.formats.format import Format
from bulkembed.formats.json_lines import JSON_LINES
from bulkembed.formats.parquet import PARQUET
from bulkembed.shards import FormatName
from bulkembed.storage.compression import codec_of

FORMATS: dict[FormatName, Format] = {known.name: known for known in (PARQUET, JSON_LINES)}
SUFFIXES: dict[str, FormatName] = {suffix: known.name for known in FORMATS.values() for suffix in known.suffixes}


def format_named(uri: str) -> FormatName | None:
    """The format that the suffix names, in small or capital letters; the suffix of a compression is ignored."""
    stem, codec = codec_of(uri)
    known = SUFFIXES.get(posixpath.splitext(stem)[1])
    return None if known == "parquet" and codec else known  # Parquet compresses its own pages
