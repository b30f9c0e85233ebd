"""Tonight's keys and the parent's -> the documents that came and those that went. Rows that only moved cancel out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkembed.row_keys import Keys
from bulkembed.runs.joins import Mask, first_rows, group, group_keys, require_sum


@dataclass(frozen=True, eq=False)
class Difference:
    """The multiset difference of two sets of keys, each side sorted by (owner, row), and its documents counted by id."""

    gone: Keys
    came: Keys
    added: int  # documents that came beyond those that went under the same id
    changed: int  # documents that came in the place of one under the same id
    deleted: int  # documents that went beyond those that came under the same id


def difference(old: Keys, new: Keys) -> Difference:
    """What is in one and not in the other, by all three hashes. Of equal keys the first by (owner, row) cancel out."""
    groups = group_keys(old, new)
    old_numbers, new_numbers = groups.split(len(old), len(new))
    cancelled = np.minimum(groups.sizes(old_numbers), groups.sizes(new_numbers))
    gone = take_sorted(old, ~first_rows(old_numbers, old.owners, old.rows, cancelled))
    came = take_sorted(new, ~first_rows(new_numbers, new.owners, new.rows, cancelled))
    require_sum("the difference of the keys", len(old) - len(gone), len(new) - len(came))
    return counted(gone, came)


def take_sorted(keys: Keys, mask: Mask) -> Keys:
    """The keys where the mask holds, by (owner, row)."""
    chosen = np.flatnonzero(mask)
    return keys.take(chosen[np.lexsort((keys.rows[chosen], keys.owners[chosen]))])


def counted(gone: Keys, came: Keys) -> Difference:
    groups = group([gone.ids, came.ids])
    went, arrived = map(groups.sizes, groups.split(len(gone), len(came)))
    added = int(np.maximum(arrived - went, 0).sum())
    changed = int(np.minimum(arrived, went).sum())
    deleted = int(np.maximum(went - arrived, 0).sum())
    require_sum("documents that came, by id", added + changed, len(came))
    require_sum("documents that went, by id", deleted + changed, len(gone))
    return Difference(gone, came, added, changed, deleted)
