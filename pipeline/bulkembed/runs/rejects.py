"""Contents that embedding has rejected: they are remembered, and not tried again every night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bulkembed import schema
from bulkembed.dataset.manifests import Rejected
from bulkembed.row_keys import Hashes
from bulkembed.runs.job import Job

Rejects = dict[bytes, tuple[str, str]]  # reason and detail, by content hash


@dataclass(frozen=True)
class RejectedRows:
    """What was rejected while some files were embedded."""

    contents: list[bytes]  # once for each row
    reasons: Rejects


def rejected_in(job: Job, names: Iterable[str]) -> RejectedRows:
    """Reads the rejects of these files. Rows that have no content hash are rejects of their scan, which counts them."""
    wanted = set(names)
    written = {name.removesuffix(".parquet") for name in job.store.names(job.ledger.rejects_folder)} if wanted else set()
    rows = []
    for name in sorted(written.intersection(wanted)):
        table = schema.table_of(job.store.read(job.ledger.rejects_uri(name)), ["content_hash", "reason", "detail"])
        rows += [row for row in table.to_pylist() if row["content_hash"] is not None]
    return RejectedRows([row["content_hash"] for row in rows], {row["content_hash"]: (row["reason"], row["detail"]) for row in rows})


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
