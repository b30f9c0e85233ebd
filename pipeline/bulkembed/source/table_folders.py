"""A listing -> SourceError where it contains a table of another system. The files of such a table also hold deleted and replaced rows.

A source that is itself the folder of a Delta or Iceberg table has been opened before: see tables."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.listing import Listing
from bulkembed.storage.store import Store
from bulkembed.storage.uris import canonical, join

EXPORT = "export its live rows to a folder of Parquet files and name that"
NAME_FOLDER = "name the folder of each table as a source of its own"
# What to do about a table in the format. docs/input.md says why Lance is not read.
ADVICE = {"Delta": NAME_FOLDER, "Hudi": EXPORT, "Lance": EXPORT, "Iceberg": NAME_FOLDER}
MARKERS = {"_delta_log": "Delta", ".hoodie": "Hudi", "_versions": "Lance", "metadata": "Iceberg"}
PROBE_THREADS = 16
MAX_METADATA_BYTES = 64 << 10  # of a metadata file, which tell that it is one
MAX_FOLDERS_ABOVE, MAX_FOLDERS_PROBED = 4, 64  # each costs a store four requests


def refuse_tables(store: Store, source: str, listing: Listing) -> None:
    """Raises SourceError where objects of the source belong to a table format. A source that names one object itself is allowed."""
    if [item.uri for item in listing.objects] == [listing.root]:
        return
    with ThreadPoolExecutor(PROBE_THREADS) as pool:
        for folder, kind in pool.map(lambda place: table_at(store, place), suspects(listing)):
            if kind:
                raise SourceError(
                    f"source {source}: {folder} is a table in {kind} format; read file by file it would give deleted and "
                    f"replaced rows too: {ADVICE[kind]}, or name one live file"
                )


def suspects(listing: Listing) -> Iterator[str]:
    """URIs of folders that may be tables: first by the names in the listing, then the folders above and between the objects."""
    yield from sorted(marked_folders(listing))
    root = canonical(listing.root)  # the folders above a symbolic link are those above its target
    if root.startswith(("http://", "https://")):
        return  # an HTTP server may answer for every name
    above = [*([root] if listing.is_glob else []), *folders_above(root)]  # the listing of a folder shows all that is in it
    inside: set[str] = set()
    for folder in unseen_folders(listing):
        inside |= {folder, *folders_above(folder)}.difference(above)
    if "://" in root:
        yield from [*above[: MAX_FOLDERS_ABOVE + 1], *sorted(inside)][:MAX_FOLDERS_PROBED]
    else:
        yield from (*above, *sorted(inside))


def marked_folders(listing: Listing) -> set[str]:
    """The folders in which the listing shows what a table has."""
    names = [item.uri for item in listing.objects] + [item.uri for item in listing.left_out]
    marked = {posixpath.dirname(name[:-1]) for name in names if name.endswith("/") and posixpath.basename(name[:-1]) in MARKERS}
    return marked | {posixpath.dirname(posixpath.dirname(name)) for name in names if name.endswith((".metadata.json", ".lance"))}


def unseen_folders(listing: Listing) -> set[str]:
    """Folders of objects whose other content the listing does not show."""
    files = {item.uri for item in listing.objects}
    linked = {target for link, target in listing.links if link not in files}
    return linked | ({posixpath.dirname(uri) for uri in files} if listing.is_glob else set())


def folders_above(uri: str) -> Iterator[str]:
    """The parents of a place, the nearest first, up to the bucket, or to the top folder below the local root."""
    while (uri := posixpath.dirname(uri)) not in ("", "/") and not uri.rstrip("/").endswith(":"):
        yield uri


def table_at(store: Store, folder: str) -> tuple[str, str | None]:
    """The folder, and the format of the table in it; None if there is no table, or if access is denied."""
    try:
        return folder, kind_of_table(store, folder)
    except StorageError:  # access may be limited to the source
        return folder, None


def kind_of_table(store: Store, folder: str) -> str | None:
    """The format of the table in a folder; None if there is no table. Raises StorageError."""
    return next((kind for marker, kind in MARKERS.items() if has_marker(store, folder, marker)), None)


def has_marker(store: Store, folder: str, marker: str) -> bool:
    place = join(folder, marker)
    names = set(store.names(place)) - {marker}  # a local file is its own and only name
    if marker == "_versions":
        return any(name.endswith(".manifest") for name in names)
    if marker == "metadata":
        described = sorted(name for name in names if name.endswith(".metadata.json"))
        return bool(described) and (any(name.endswith(".avro") for name in names) or describes_table(store, join(place, described[0])))
    return bool(names)


def describes_table(store: Store, uri: str) -> bool:
    """Whether this is the metadata of an Iceberg table. A table without rows has nothing but that."""
    start = store.read_start(uri, MAX_METADATA_BYTES)
    return b'"format-version"' in start or b'"table-uuid"' in start
