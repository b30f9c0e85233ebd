"""Tags: names of snapshots that gc keeps for as long as they have one."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import read_record, record_bytes
from bulkembed.dataset.snapshots import snapshot_of
from bulkembed.dataset.tombstones import require_live
from bulkembed.errors import ConfigError, SourceError
from bulkembed.storage.store import Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
THREADS = 16


def tags(store: Store, output: str) -> dict[str, int]:
    """The number of the snapshot of each tag, by the tag's name."""
    names = [name.removesuffix(".json") for name in store.names(paths.tags_folder(output)) if name.endswith(".json")]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: read_tag(store, output, name), names), strict=True))


def read_tag(store: Store, output: str, name: str) -> int:
    """The number of the snapshot of this tag. Raises FileNotFoundError where there is no such tag."""
    return read_record(store, paths.tag_uri(output, name), lambda record: int(record["snapshot"]))


def create_tag(store: Store, output: str, name: str, number: int) -> None:
    """Gives a snapshot a name.

    Raises ConfigError where the name is bad or another snapshot's, SourceError where there is no such snapshot."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"tag: {name!r} must be up to 100 letters, digits and ._- and begin with a letter or digit")
    snapshot_of(store, output, number)
    uri = paths.tag_uri(output, name)
    if not store.create(uri, record_bytes({"snapshot": number})) and (standing := read_tag(store, output, name)) != number:
        raise ConfigError(f"tag: {name} is a tag of snapshot {standing}; remove it first with --untag {name}")
    try:
        require_live(store, output, number)
    except SourceError:
        store.delete(uri)
        raise


def remove_tag(store: Store, output: str, name: str) -> None:
    """Raises SourceError where there is no such tag."""
    known = tags(store, output)
    if name not in known:
        raise SourceError(f"output {output}: has no tag {name}; its tags: {', '.join(known) or 'none'}")
    store.delete(paths.tag_uri(output, name))
