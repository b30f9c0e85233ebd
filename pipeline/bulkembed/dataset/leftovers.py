"""What lies below an output although no snapshot lists it: runs that were aborted have left it, and gc deletes it in time."""

from __future__ import annotations

import sys
from typing import NamedTuple

from bulkembed.dataset.gc import GcRules, folder_of, plan_gc
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store

ALL = GcRules(keep=sys.maxsize, grace=float("inf"), older_than=0.0, max_share=1.0)  # nothing expires, and everything else is old
FOLDERS = {"data", "receipts", "rejects", "keys", "manifests"}
MAX_EXAMPLES = 3


class Leftovers(NamedTuple):
    objects: int
    size: int  # bytes
    examples: tuple[str, ...]  # URIs
    fault: str = ""  # why they could not be counted


NO_LEFTOVERS = Leftovers(0, 0, ())


def find_leftovers(store: Store, output: str) -> Leftovers:
    """Lines with a run under way have none: that run may need them. gc reads all snapshots, so that a damaged old one is a fault."""
    try:
        plan = plan_gc(store, output, ALL)
    except StorageError as error:
        return NO_LEFTOVERS._replace(fault=str(error))
    found = [item for item in plan.found.garbage if folder_of(output, item) in FOLDERS]
    return Leftovers(len(found), sum(item.size for item in found), tuple(item.uri for item in found[:MAX_EXAMPLES]))
