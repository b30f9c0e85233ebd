"""The state of an output that gc works on: all snapshots, which have expired, and what holds the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bulkembed.dataset import paths
from bulkembed.dataset.live_leases import LiveLease, live_leases
from bulkembed.dataset.pins import pins
from bulkembed.dataset.snapshots import Snapshot, View, current_snapshot, read_snapshot
from bulkembed.dataset.tags import tags
from bulkembed.dataset.tombstones import tombstones
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store

READ_THREADS = 32


@dataclass(frozen=True)
class State:
    """An output at one moment."""

    now: float  # Unix seconds by the store's clock
    records: dict[int, Snapshot]  # of all snapshots, by number; their records are never deleted
    expired: dict[int, float]  # when snapshots got their tombstones
    held: dict[int, str]  # why a snapshot must not expire, and why an expired one is not freed yet
    leases: list[LiveLease]
    lapsed: list[str]  # URIs of pins whose time is over

    @property
    def live(self) -> list[Snapshot]:
        """Ascending by number."""
        return [record for number, record in sorted(self.records.items()) if number not in self.expired]


def look(store: Store, output: str, now: float, known: Mapping[int, Snapshot]) -> State:
    """The state of an output. `known`: records that were read before, and cannot have changed."""
    numbers = [number for number in View(store, output).numbers.taken if number not in known]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        records = {**known, **dict(zip(numbers, pool.map(lambda number: record_of(store, output, number), numbers), strict=True))}
    expired = tombstones(store, output)
    current, leases, pinned = current_snapshot(store, output), live_leases(store, output, now), pins(store, output)
    held = newest_of_lines(record for number, record in records.items() if number not in expired)
    held |= {lease.base: f"a run on line {lease.line} was planned from it" for lease in leases if lease.base}
    held |= {pin.snapshot: "a reader has pinned it" for pin in pinned if now < pin.expires}
    held |= {number: f"has the tag {name}" for name, number in tags(store, output).items()}
    held |= {current.number: "is current"} if current is not None else {}
    return State(now, records, expired, held, leases, [pin.uri for pin in pinned if now >= pin.expires])


def record_of(store: Store, output: str, number: int) -> Snapshot:
    """Raises StorageError also where the record is missing, since no record is ever deleted."""
    try:
        return read_snapshot(store, output, number)
    except FileNotFoundError:
        where = paths.numbered_uri(paths.snapshots_folder(output), number)
        raise StorageError(f"{where}: missing; restore it from a backup") from None


def newest_of_lines(live: Iterable[Snapshot]) -> dict[int, str]:
    """The newest snapshot of each line, whole ones and trials apart."""
    newest: dict[tuple[str, bool], int] = {}
    for record in live:
        key = record.line, record.limited
        newest[key] = max(newest.get(key, 0), record.number)
    return {number: f"is the newest of line {line}" for (line, _), number in newest.items()}


def beyond(state: State, keep: int) -> list[Snapshot]:
    """The live snapshots that are older than the newest `keep` of their line, and that nothing holds."""
    seen: dict[tuple[str, bool], int] = {}
    found = []
    for record in reversed(state.live):
        key = record.line, record.limited
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > keep and record.number not in state.held:
            found.append(record)
    return found[::-1]
