"""The places of a source -> one listing of all its documents. The order of the places makes no difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from bulkembed.shards import FormatName
from bulkembed.source.objects import IsKnown, LeftOutNames, SourceListing, SourceObject, examples, nothing_known, object_id, source_listing
from bulkembed.storage.name_rules import EXCLUDED
from bulkembed.storage.store import Store
from bulkembed.storage.uris import canonical

LISTING_THREADS = 8


def listing_of(
    store: Store,
    places: Sequence[str],
    exclude: Sequence[str] = (),
    is_known: IsKnown = nothing_known,
    asked: FormatName | None = None,
) -> SourceListing:
    """The documents at all places, each object once, and what is left out there. `exclude`: globs of names that are not read.

    `is_known`: whether just these objects of a single place have been read before. `asked`: the format of all objects; None where each
    tells its own.

    Raises NoDocuments where one of the places has none, SourceError where one holds a table of another system."""
    ordered = sorted(places, key=lambda place: (len(canonical(place)), canonical(place)))
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        known = is_known if len(ordered) == 1 else nothing_known
        listings = list(pool.map(partial(source_listing, store, exclude=exclude, is_known=known, asked=asked), ordered))
    joined = listings[0] if len(listings) == 1 else join_listings(ordered, listings)
    reasons = {names.reason for listing in listings for names in listing.left_out}
    idle = [LeftOutNames(f"{EXCLUDED} {pattern}", 0, ()) for pattern in exclude if f"{EXCLUDED} {pattern}" not in reasons]
    return replace(joined, left_out=[*joined.left_out, *idle])


def join_listings(places: Sequence[str], listings: Sequence[SourceListing]) -> SourceListing:
    """`places` come in an order of their own: an object below several of them is read as one of the first."""
    objects: dict[str, SourceObject] = {}
    found = [item for listing in listings for item in listing.objects]
    again = [item.uri for item in found if objects.setdefault(canonical(item.uri), item) is not item]
    left_out = [
        replace(names, reason=f"{names.reason}, below {place}")
        for place, listing in zip(places, listings, strict=True)
        for names in listing.left_out
    ]
    if again:
        left_out.append(LeftOutNames("below several places of the source, read once", len(again), examples(again)))
    return SourceListing(
        objects=sorted(with_own_ids(objects), key=lambda item: item.id),
        failures=list(dict.fromkeys(failure for listing in listings for failure in listing.failures)),
        left_out=left_out,
        links=[link for listing in listings for link in listing.links],
        tables=[table for listing in listings for table in listing.tables],
    )


def with_own_ids(objects: dict[str, SourceObject]) -> list[SourceObject]:
    """The objects, of which no two have the same id. `objects`: by their canonical URIs.

    An id says nothing of the place, so that objects keep theirs when a place is added or moves. Copies below two places get ids that do."""
    count = Counter(item.id for item in objects.values())
    return [
        item if count[item.id] == 1 else replace(item, id=object_id(item.relative_path, f"{item.id}\0{place}"))
        for place, item in objects.items()
    ]
