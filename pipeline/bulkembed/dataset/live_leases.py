"""The leases of runs that are under way, as gc sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import numbers_among, read_record
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class LiveLease:
    """A run that writes to a line now."""

    line: str
    base: int  # number of the snapshot that it was planned from; 0: none
    started: float  # Unix seconds by the store's clock


def live_leases(store: Store, output: str, now: float) -> list[LiveLease]:
    """The lease of each line whose holder has given a sign of life within the lease's time."""
    lines = store.names(paths.leases_root(output))
    return [lease for line in lines for lease in live_lease(store, output, line, now)]


def live_lease(store: Store, output: str, line: str, now: float) -> Iterator[LiveLease]:
    """The newest lease of a line, if it is alive. An object whose time the store does not say counts as new."""
    listed = store.listed(paths.leases_folder(output, line))
    times = {item.relative_path: now if item.modified is None else item.modified for item in listed}
    numbers = numbers_among(times, ".json")
    if not numbers:
        return
    name = f"{max(numbers):08d}"
    seen = max(times[f"{name}.json"], times.get(f"{name}.beat", 0.0))
    uri = paths.numbered_uri(paths.leases_folder(output, line), max(numbers))
    base, seconds = read_record(store, uri, lambda record: (int(record["base"]), float(record["seconds"])))
    if now <= seen + seconds:
        yield LiveLease(line, base, times[f"{name}.json"])
