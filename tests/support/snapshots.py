"""Snapshots and manifests that no run has made."""

from __future__ import annotations

from typing import Any

from bulkembed.dataset.manifests import DataFile, SourceVersion
from bulkembed.dataset.publishing import publish_snapshot
from bulkembed.dataset.snapshots import Draft, Snapshot
from bulkembed.storage.store import Store

DRAFT: dict[str, Any] = {"parent": 0, "line": "l", "fingerprint": "f", "sources": ["s"], "limit": None, "run_key": None, "provenance": {}}


def some_snapshot(**values: Any) -> Snapshot:
    counts = dict.fromkeys(("objects", "files", "documents", "rows", "rejects"), 0)
    return Snapshot(**DRAFT | {"number": 1, "created": "", "source_identity": "", "manifest": ""} | counts | values)


def data_files(*names: str) -> list[DataFile]:
    return [DataFile(name, 3, 2, 10, 99, "hash", b"\1\2\3\4") for name in names]


def publish_files(store: Store, output: str, *names: str, **values: Any) -> Snapshot:
    """Publishes a snapshot of data files that nobody has written, as a run does that was planned from `parent`."""
    sources = [SourceVersion("object", "a.jsonl", 3, 1)]
    draft = Draft(**DRAFT | values)
    return publish_snapshot(store, output, draft, data_files(*names), sources, [], lambda parent, following: None)
