"""Which line of an output is current: numbered records, of which the newest is valid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, newest_number, read_record, typed
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store

MAX_ATTEMPTS = 100  # to take a number, while others take numbers too


@dataclass(frozen=True)
class Head:
    """Says that the newest snapshot of a line is the dataset: of its whole snapshots, or of its limited ones where it has no other."""

    line: str
    limit: int | None  # of the snapshot that was the newest of the line
    created: str  # ISO 8601, UTC
    reason: str  # what moved the head


def newest_head(store: Store, output: str) -> Head | None:
    folder = paths.heads_folder(output)
    number = newest_number(store, folder)
    return read_record(store, paths.numbered_uri(folder, number), typed(Head)) if number else None


def create_head(store: Store, output: str, number: int, line: str, limit: int | None, reason: str) -> bool:
    """False where another command took the number first."""
    head = Head(line, limit, datetime.now(UTC).isoformat(timespec="seconds"), reason)
    return create_numbered(store, paths.heads_folder(output), number, asdict(head))


def move_head(store: Store, output: str, line: str, limit: int | None, reason: str) -> None:
    """Makes a line the current one, whatever was current before."""
    for _ in range(MAX_ATTEMPTS):
        head = newest_head(store, output)
        if head is not None and head.line == line:
            return
        if create_head(store, output, newest_number(store, paths.heads_folder(output)) + 1, line, limit, reason):
            return
    raise StorageError(f"{output}: {MAX_ATTEMPTS} other commands moved the head first; run again")
