"""The first bytes of a file -> what it is, where they show that it is not what its name says."""

from __future__ import annotations

import re

from bulkembed.storage.compression import CODECS, codec_in

KIND_BYTES = 512  # as many as a tar archive needs
TAR_AT, TAR = 257, b"ustar"
NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a]")  # a header of CSV may well begin with PAR1, and holds none of these
# How files of a format begin, what they are called, and what to do about them.
MARKS = (
    ("parquet", b"PAR1", "Parquet", "give it the suffix .parquet"),
    ("arrow", b"ARROW1", "an Arrow file", "give it the suffix .arrow"),
    ("arrow", b"\xff\xff\xff\xff", "an Arrow stream", "give it the suffix .arrows"),
    ("avro", b"Obj\x01", "Avro", "convert it"),
)


def foreign_kind(head: bytes, format_name: str) -> str | None:
    """What a decompressed file is that should be of this format, and what to do about it; None where its first bytes do not tell."""
    codec = codec_in(head, None)
    if codec:
        return f"is compressed twice, as its first bytes show, at last with {codec}; decompress it once"
    if head[TAR_AT:].startswith(TAR):
        return "is a tar archive, as its first bytes show; unpack it"
    for name, mark, kind, advice in MARKS:
        if name != format_name and head.startswith(mark) and NO_TEXT.search(head):
            return f"is {kind}, as its first bytes show; {advice}"
    return None


def wrong_name(head: bytes, format_name: str) -> str | None:
    """As `foreign_kind`, of a file whose name tells no compression."""
    codec = codec_in(head, None)
    if not codec:
        return foreign_kind(head, format_name)
    suffix = next(suffix for suffix, known in CODECS.items() if known == codec)
    return f"is compressed with {codec}, as its first bytes show; give it the second suffix {suffix}"
