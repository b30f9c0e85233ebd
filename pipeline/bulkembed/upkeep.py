"""Keeps an output small, and free of erased ids: what people import for it by way of `api`."""

from __future__ import annotations

from bulkembed.dataset import tags
from bulkembed.dataset.gc import GcPlan, GcRules
from bulkembed.dataset.gc import gc as collect
from bulkembed.dataset.gc import plan_gc as plan_collection
from bulkembed.durations import seconds_of
from bulkembed.errors import ConfigError
from bulkembed.runs import forget as erasure
from bulkembed.runs.forget import Forgotten, IdFile
from bulkembed.runs.id_files import is_parquet
from bulkembed.runs.places import Place, Storage, located, place_of
from bulkembed.storage.store import Store

KEEP, GRACE, OLDER_THAN, ALLOW_SHARE = 3, "24h", "7d", 0.5


def gc(
    uri: Place,
    *,
    keep: int = KEEP,
    grace: str | float = GRACE,
    older_than: str | float = OLDER_THAN,
    allow_share: float = ALLOW_SHARE,
    storage: Storage | None = None,
) -> GcPlan:
    """Makes snapshots beyond the newest `keep` of each line expire, and deletes what nothing has needed for `grace` or `older_than`.

    Returns what it did; `print` shows it. Raises HeldBack where more than `allow_share` of all bytes of data would go, before it
    changes anything; ConfigError where an argument is wrong, SourceError where there is no dataset."""
    return collect(*located(uri, storage), gc_rules(keep, grace, older_than, allow_share))


def plan_gc(
    uri: Place,
    *,
    keep: int = KEEP,
    grace: str | float = GRACE,
    older_than: str | float = OLDER_THAN,
    allow_share: float = ALLOW_SHARE,
    storage: Storage | None = None,
) -> GcPlan:
    """What `gc` would do. It writes and deletes nothing."""
    return plan_collection(*located(uri, storage), gc_rules(keep, grace, older_than, allow_share))


def gc_rules(keep: int, grace: str | float, older_than: str | float, allow_share: float) -> GcRules:
    if keep < 1:
        raise ConfigError(f"keep: must be at least 1 (got {keep})")
    if not 0 <= allow_share <= 1:
        raise ConfigError(f"allow_share: must be between 0 and 1 (got {allow_share:g})")
    return GcRules(keep, seconds_of(grace, "grace"), seconds_of(older_than, "older_than"), allow_share)


def tag(uri: Place, name: str, snapshot: int, storage: Storage | None = None) -> None:
    """Gives a snapshot a name. `gc` keeps it until the name is removed. Raises ConfigError or SourceError."""
    tags.create_tag(*located(uri, storage), name, snapshot)


def untag(uri: Place, name: str, storage: Storage | None = None) -> None:
    """Removes a tag. Raises SourceError where there is no such tag."""
    tags.remove_tag(*located(uri, storage), name)


def forget(uri: Place, ids: Place, *, ids_column: str | None = None, storage: Storage | None = None) -> Forgotten:
    """Erases the ids of a file: text with an id a line, or Parquet with a column of them.

    New snapshots without their rows are published on every line, and the older ones that hold such rows expire; `gc` frees them. Runs
    embed no row of these ids while they are on the list. Raises ConfigError where the file is wrong, SourceError where there is no
    dataset."""
    store, output = located(uri, storage)
    return erasure.forget(store, output, read_ids(store, ids, ids_column))


def remember(uri: Place, ids: Place, *, ids_column: str | None = None, storage: Storage | None = None) -> tuple[int, int]:
    """Takes the ids of a file off the list of erased ones, so that runs embed their rows again.

    Returns how many different ids the file holds, and how many of them were on the list. Raises what `forget` raises."""
    store, output = located(uri, storage)
    return erasure.remember(store, output, read_ids(store, ids, ids_column))


def read_ids(store: Store, ids: Place, column: str | None) -> IdFile:
    place = place_of("ids", ids)
    try:
        data = store.read(place)
    except FileNotFoundError:
        raise ConfigError(f"ids: there is no file {place}") from None
    if column is not None and not is_parquet(data):
        raise ConfigError(f"ids_column: {place} is no Parquet, and has no columns; leave ids_column out")
    return IdFile(place, data, column or "id")
