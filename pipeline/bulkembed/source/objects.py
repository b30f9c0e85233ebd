"""A source -> its objects to read in source order, and the other names there, counted and named by reason."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bulkembed.errors import SourceError
from bulkembed.formats.format import ObjectVersion
from bulkembed.formats.known import SUFFIXES, format_named
from bulkembed.records import Failure
from bulkembed.shards import FormatName
from bulkembed.source.live_files import Table, TableFile
from bulkembed.source.object_formats import formats_of, suffix_of
from bulkembed.source.table_folders import refuse_tables
from bulkembed.source.tables import open_table
from bulkembed.storage.compression import READ_SUFFIXES
from bulkembed.storage.listing import BROKEN, NOT_UTF8, LeftOut, StoredObject
from bulkembed.storage.name_rules import NameRules
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

EXPECTED = f"{', '.join(SUFFIXES)} (also with {', '.join(READ_SUFFIXES)}), or other names with --format"
HIDDEN_SIGNS = (".", "_")
MAX_EXAMPLES, MAX_SUFFIXES = 3, 5
TABLE_FOLDERS = ("_delta_log/", "metadata/")  # hold a table's own records
# Names that cannot be read and may be documents. They fail the run, as a corrupt object does.
UNREADABLE = {
    BROKEN: "a link that leads nowhere; mend, remove or exclude it",
    NOT_UTF8: "its name is not UTF-8; rename or exclude it",
}
UNSEEN = "the store tells neither an ETag nor a time of change, so new content would go unseen; copy the object to a store that does"


class NoDocuments(SourceError):
    """There is no document file at the source."""


@dataclass(frozen=True)
class SourceObject:
    """One object of the corpus as the listing shows it. Its id changes when its content does."""

    uri: str
    relative_path: str
    size: int
    version: str  # what the store shows of its content: see storage/object_info
    format: FormatName
    id: str  # sorts in source order: readable part of the path, then a hash of path and version
    table: TableFile | None = field(default=None, compare=False)  # what the table says of it, where the source is one

    @property
    def dead_rows(self) -> int:
        """How many of its rows the table has deleted."""
        return len(self.table.dead_rows) if self.table else 0

    def in_store(self, store: Store) -> ObjectVersion:
        return ObjectVersion(store, self.uri, self.version, self.relative_path)


IsKnown = Callable[[Sequence[SourceObject]], bool]


@dataclass(frozen=True)
class LeftOutNames:
    """Names below the source that are not read, for one reason."""

    reason: str
    count: int
    examples: tuple[str, ...]  # the first few

    def __str__(self) -> str:
        names = f": {', '.join(self.examples)}{', ...' if self.count > len(self.examples) else ''}"
        return f"{self.count:,} {self.reason}{names if self.count else ''}"


@dataclass(frozen=True)
class SourceListing:
    """Objects in source order, and the other names that the listing met."""

    objects: list[SourceObject] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)  # names that may be documents and cannot be read
    left_out: list[LeftOutNames] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # symbolic links that were followed, and what they lead to
    tables: list[str] = field(default_factory=list)  # sources that are tables: the place, the version and the format


def nothing_known(objects: Sequence[SourceObject]) -> bool:
    return False


def source_listing(
    store: Store, source: str, exclude: Sequence[str] = (), is_known: IsKnown = nothing_known, asked: FormatName | None = None
) -> SourceListing:
    """The document files under a prefix or glob. Raises SourceError where there are none, or where they belong to a table format.

    A source that is the folder of a Delta or Iceberg table is its live files. `exclude`: globs of names that are not read. `is_known`:
    whether just these objects have been read before. Then the folders above and between them, which were looked at for that, are not
    looked at again. `asked`: the format of all objects; None where each tells its own."""
    try:
        listing = store.listing(source, NameRules(HIDDEN_SIGNS, exclude), lambda name: bool(asked or format_named(name)))
    except FileNotFoundError:
        raise NoDocuments(f"source {source}: nothing there; expected {EXPECTED}") from None
    table = open_table(store, source, listing)
    if table is not None and asked not in (None, "parquet"):
        raise SourceError(f"source {source}: is {table.name}, whose files are Parquet; leave out --format {asked}")
    if table is not None:
        return table_listing(store, source, table, exclude)
    found = zip(listing.objects, formats_of(store, listing.objects, asked), strict=True)
    pairs = [(stored, with_version(stored, known)) for stored, known in found]
    objects = sorted((source_object(stored, known) for stored, known in pairs if isinstance(known, str)), key=lambda item: item.id)
    others = [stored for stored, known in pairs if known is None]
    if not objects or not is_known(objects):
        refuse_tables(store, source, listing)
    failures = [Failure(printable(item.uri), UNREADABLE[item.reason]) for item in listing.left_out if may_be_document(item, asked)]
    failures += [known for _, known in pairs if isinstance(known, Failure)]
    left_out = left_out_names(others, [item for item in listing.left_out if not may_be_document(item, asked)])
    if not objects:
        nothing = "nothing there that can be read" if failures else "nothing there"
        some = f"{len(others)} objects there, none of them" if others else f"{nothing}; expected"
        reasons = [f"{failure.where}: {failure.reason}" for failure in failures[:MAX_EXAMPLES]] + [
            f"left out {names}" for names in left_out
        ]
        raise NoDocuments("; ".join([f"source {source}: {some} {EXPECTED}", *reasons]))
    return SourceListing(objects, failures, left_out, listing.links)


def with_version(stored: StoredObject, known: FormatName | Failure | None) -> FormatName | Failure | None:
    """The format of an object. A Failure where the store does not show when its content changes: a new one would go unseen."""
    return Failure(printable(stored.uri), UNSEEN) if known is not None and not stored.version else known


def table_listing(store: Store, source: str, table: Table, exclude: Sequence[str] = ()) -> SourceListing:
    """The live files of a table. A file that is gone is a failure; a file that is not live is left out."""
    there = {item.relative_path: item for item in table.listing.objects}
    rules = NameRules(excluded=exclude)
    excluded = {path: part for path in table.files if (part := rules.left_out_part(f"/{path}", ""))}
    live = {path: dead for path, dead in table.files.items() if path not in excluded}
    objects = [table_object(there[path], TableFile(dead, table.columns)) for path, dead in live.items() if path in there]
    missing = sorted(printable(join(table.folder, path)) for path in live.keys() - there.keys())
    failures = [Failure(uri, f"{table.name} lists this file, and it is not there; restore the file or the table") for uri in missing]
    if not objects and not failures:
        raise NoDocuments(f"source {source}: {table.name} has no files")
    old = sorted(path for path in there.keys() - table.files.keys() - {*table.deletes} if not path.startswith(TABLE_FOLDERS))
    left_out = [LeftOutNames("not live in this version of the table", len(old), examples(old))] if old else []
    left_out += left_out_names([], [LeftOut(part[1:], part[1:], reason) for part, reason in sorted(set(excluded.values()))])
    named = f"{source}: {table.name}"
    return SourceListing(sorted(objects, key=lambda item: item.id), failures, left_out, table.listing.links, [named])


def table_object(stored: StoredObject, table: TableFile) -> SourceObject:
    """A live file of a table. Its id also changes when other rows of it are deleted."""
    dead = table.dead_rows
    version = f"{stored.version}\0{hashlib.sha256(dead.tobytes()).hexdigest()}" if len(dead) else stored.version
    identity = object_id(stored.relative_path, version)
    return SourceObject(stored.uri, stored.relative_path, stored.size, stored.version, "parquet", identity, table)


def source_objects(store: Store, source: str) -> list[SourceObject]:
    """The corpus in source order. Raises SourceError as `source_listing` does."""
    return source_listing(store, source).objects


def source_object(stored: StoredObject, known: FormatName) -> SourceObject:
    """The source object of a document file. Where its name does not tell its format, that is a part of its id: it decides the rows."""
    version = stored.version if known == format_named(stored.uri) else f"{stored.version}\0{known}"
    return SourceObject(stored.uri, stored.relative_path, stored.size, stored.version, known, object_id(stored.relative_path, version))


def object_id(relative_path: str, version: str) -> str:
    # Readers ignore names that start with a dot or an underscore.
    readable = re.sub(r"[^A-Za-z0-9.=_-]", "_", relative_path).lstrip("._")[:80]
    digest = hashlib.sha256(f"{relative_path}\0{version}".encode()).hexdigest()[:16]
    return f"{readable}-{digest}"


def readable_name(object_id: str) -> str:
    """The readable part of an object's id, without the hash, which changes with every version."""
    return object_id.rsplit("-", 1)[0]


def may_be_document(item: LeftOut, asked: FormatName | None) -> bool:
    """Whether a name that cannot be read may hold documents. A folder, or a name without a suffix, always may."""
    return item.reason in UNREADABLE and bool(item.uri.endswith("/") or not suffix_of(item.uri) or asked or format_named(item.uri))


def left_out_names(other_files: list[StoredObject], left_out: list[LeftOut]) -> list[LeftOutNames]:
    """What is not read, by reason: the most frequent first."""
    by_suffix: dict[str, list[str]] = {}
    for stored in other_files:
        by_suffix.setdefault(suffix_of(stored.uri), []).append(stored.relative_path)
    common = sorted(by_suffix, key=lambda suffix: -len(by_suffix[suffix]))
    reasons = {f"with the suffix {suffix}" if suffix else "without a suffix": by_suffix[suffix] for suffix in common[:MAX_SUFFIXES]}
    rest = [name for suffix in common[MAX_SUFFIXES:] for name in by_suffix[suffix]]
    if rest:
        reasons["with other suffixes"] = rest
    for item in left_out:
        reasons.setdefault(item.reason, []).append(item.relative_path)
    names_by_reason = [LeftOutNames(reason, len(names), examples(names)) for reason, names in reasons.items()]
    return sorted(names_by_reason, key=lambda left_out: -left_out.count)


def examples(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(printable, sorted(names)[:MAX_EXAMPLES]))


def printable(name: str) -> str:
    """A name on one line: what cannot be printed is escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in name)
