"""Sources to list, and what a listing holds."""

from __future__ import annotations

import os
from typing import Any

import pytest

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


def deny(patched: pytest.MonkeyPatch, name: str) -> None:
    """Refuses to list local folders of this name."""
    scandir = os.scandir

    def refusing(folder: str) -> Any:
        if folder.endswith(f"/{name}"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    patched.setattr(os, "scandir", refusing)
