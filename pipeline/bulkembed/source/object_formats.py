"""Objects of a listing -> the format of each: as asked for, by its name, or by its first bytes where the name has no suffix."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bulkembed.errors import StorageError
from bulkembed.formats.known import FIRST_BYTES, format_in, format_named
from bulkembed.records import Failure
from bulkembed.shards import FormatName
from bulkembed.storage.compression import codec_of
from bulkembed.storage.listing import StoredObject
from bulkembed.storage.store import Store

SUFFIX = re.compile(r"(\.[a-z][a-z0-9]{0,9}){1,2}$")
SNIFF_THREADS = 16  # first bytes are few and far away: the threads wait for the store


def formats_of(store: Store, objects: Sequence[StoredObject], asked: FormatName | None) -> list[FormatName | Failure | None]:
    """The format of each object; None where nothing tells it, a Failure where it cannot be read. `asked`: the format of all of them.

    It reads the first bytes of names without a suffix alone. What they do not tell is never guessed."""

    def format_of(stored: StoredObject) -> FormatName | Failure | None:
        if suffix_of(stored.uri) or stored.size < FIRST_BYTES:
            return None
        try:
            return format_in(store.read_start(stored.uri, FIRST_BYTES))
        except FileNotFoundError:
            return None
        except StorageError as error:
            return Failure(stored.uri, f"its first bytes, which would tell its format, cannot be read: {error}")

    found: list[FormatName | Failure | None] = [asked or format_named(stored.uri) for stored in objects]
    unknown = [number for number, known in enumerate(found) if known is None]
    with ThreadPoolExecutor(SNIFF_THREADS) as pool:
        for number, known in zip(unknown, pool.map(lambda number: format_of(objects[number]), unknown), strict=True):
            found[number] = known
    return found


def suffix_of(uri: str) -> str:
    """The suffix of a name, with that of its compression; empty where there is none."""
    stem, codec = codec_of(posixpath.basename(uri))
    suffix = posixpath.splitext(stem)[1]
    whole = posixpath.basename(uri).lower().removeprefix(posixpath.splitext(stem)[0]) if suffix or codec else ""
    return whole if SUFFIX.fullmatch(whole) else ""
