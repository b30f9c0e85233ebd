"""Keeps an output small: what people import for it by way of `api`."""

from __future__ import annotations

from bulkembed.dataset import tags
from bulkembed.dataset.gc import GcPlan, GcRules
from bulkembed.dataset.gc import gc as collect
from bulkembed.dataset.gc import plan_gc as plan_collection
from bulkembed.durations import seconds_of
from bulkembed.errors import ConfigError
from bulkembed.runs.places import Place, Storage, located

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
