"""Sources to list, and what a listing holds."""

from __future__ import annotations

from bulkembed.source.objects import SourceListing
from bulkembed.storage.store import Store

ROW = b'{"id": 1, "text": "a b"}\n'


def fill(root: object, *names: str, store: Store | None = None, data: bytes = ROW) -> None:
    for name in names:
        (store or Store()).put(f"{root}/{name}", data)


def paths(listing: SourceListing) -> list[str]:
    return sorted(item.relative_path for item in listing.objects)


def left_out(listing: SourceListing) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Count and examples by reason."""
    return {group.reason: (group.count, group.examples) for group in listing.left_out}
