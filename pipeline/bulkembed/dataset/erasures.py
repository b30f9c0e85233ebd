"""Ids that are erased: numbered lists of id hashes. Rows of these ids are in no new snapshot while they are on the list.

A list holds no id, but the hash of an id that can be guessed can be guessed too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, listed_numbers, newest_number, read_record, typed
from bulkembed.errors import StorageError
from bulkembed.row_keys import Hashes, no_hashes
from bulkembed.storage.store import Store

MAX_ATTEMPTS = 100  # to take a number, while other commands take numbers too
Action = Literal["forget", "undo"]


@dataclass(frozen=True)
class Erasure:
    """One call of `forget`: ids that came on the list, or that were taken off it."""

    action: Action
    created: str  # ISO 8601, UTC
    id_hashes: list[str]  # see row_keys.id_hashes, in hexadecimal


def newest_erasure(store: Store, output: str) -> int:
    """The number of the newest list; 0 where there is none. A snapshot says which one it heeds."""
    return newest_number(store, paths.erasures_folder(output))


def forgotten(store: Store, output: str, number: int | None = None) -> Hashes:
    """The hashes of the ids that are on the list, as it was with list `number`; None: as it is now. Ascending by bytes, each once."""
    folder = paths.erasures_folder(output)
    listed: set[str] = set()
    for each in sorted(listed_numbers(store, folder)):
        if number is not None and each > number:
            break
        erasure = read_record(store, paths.numbered_uri(folder, each), typed(Erasure))
        if erasure.action == "forget":
            listed.update(erasure.id_hashes)
        else:
            listed.difference_update(erasure.id_hashes)
    return hashes_of(sorted(listed))


def are_in(ids: Hashes, listed: Hashes) -> npt.NDArray[np.bool_]:
    """For each id hash, whether it is on a list."""
    found = np.isin(ids[:, 0], listed[:, 0])
    if found.any():
        known = set(map(tuple, listed.tolist()))
        at = np.flatnonzero(found)
        found[at] = [tuple(pair) in known for pair in ids[at].tolist()]
    return found


def add_erasure(store: Store, output: str, action: Action, ids: Hashes) -> int:
    """Puts ids on the list, or takes them off. Returns the number of the list that says so: the newest one, where nothing changes."""
    wanted = set(texts_of(ids))
    for _ in range(MAX_ATTEMPTS):
        newest = newest_erasure(store, output)
        listed = set(texts_of(forgotten(store, output, newest)))
        changes = wanted - listed if action == "forget" else wanted & listed
        if not changes:
            return newest
        erasure = Erasure(action, datetime.now(UTC).isoformat(timespec="seconds"), sorted(changes))
        if create_numbered(store, paths.erasures_folder(output), newest + 1, vars(erasure)):
            return newest + 1
    raise StorageError(f"{output}: {MAX_ATTEMPTS} other commands changed the list of erased ids first; try again")


def texts_of(ids: Hashes) -> list[str]:
    return [row.tobytes().hex() for row in np.ascontiguousarray(ids)]


def hashes_of(texts: list[str]) -> Hashes:
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint64).reshape(-1, 2) if texts else no_hashes()
