"""Contents that embedding has rejected: they are remembered, and not tried again every night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from bulkembed import schema
from bulkembed.dataset.manifests import Rejected
from bulkembed.row_keys import Hashes
from bulkembed.runs.job import Job

Rejects = dict[bytes, tuple[str, str]]  # reason and detail, by content hash


def rejects_of_files(job: Job, names: Iterable[str]) -> Rejects:
    """What was rejected while these files were embedded."""
    written = {name.removesuffix(".parquet") for name in job.store.names(job.ledger.rejects_folder)}
    found: Rejects = {}
    for name in sorted(written.intersection(names)):
        rejects = schema.table_of(job.store.read(job.ledger.rejects_uri(name)), ["content_hash", "reason", "detail"])
        found |= {row["content_hash"]: (row["reason"], row["detail"]) for row in rejects.to_pylist() if row["content_hash"] is not None}
    return found


def remembered_rejects(
    before: Iterable[Rejected], came: Iterable[Hashes], gone: Hashes, reasons: Mapping[bytes, tuple[str, str]]
) -> list[Rejected]:
    """What a snapshot remembers: the contents that are rejected and that the source still has, each with its number of rows.

    `before`: of the parent; `came`, `gone`: contents of rows that became rejects, and of rejects that went, once for each row."""
    rows: Counter[bytes] = Counter()
    known = dict(reasons)
    for item in before:
        rows[item.content_hash] += item.rows
        known.setdefault(item.content_hash, (item.reason, item.detail))
    for hashes in came:
        rows.update(digests(hashes))
    rows.subtract(digests(gone))
    return [Rejected(content, *known[content], count) for content, count in sorted(rows.items()) if count > 0]


def digests(hashes: Hashes) -> list[bytes]:
    return [row.tobytes() for row in hashes]


def rejected_contents(job: Job, names: Iterable[str]) -> list[bytes]:
    """The contents that were rejected while these files were embedded, once for each row."""
    written = {name.removesuffix(".parquet") for name in job.store.names(job.ledger.rejects_folder)}
    tables = (
        schema.table_of(job.store.read(job.ledger.rejects_uri(name)), ["content_hash"]) for name in sorted(written.intersection(names))
    )
    return [content for table in tables for content in table["content_hash"].to_pylist() if content is not None]
