"""Documents that came and went, and the rows of data files -> where each vector comes from. Pure.

A slot is a document in a data file. What went gives its slot free. What came takes the vector of a slot with its content, wherever
there is one: only contents that have none go to the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Hashes, Keys
from bulkembed.runs.joins import Groups, Indices, Integers, Mask, first_rows, group, group_keys, in_groups, ranks, require_sum

BASE = 0  # the slot is live: its file is in the parent's list
ORPHAN = 1  # its file is published and in no list that counts: of an aborted run, or of a parent that is not used
FOREIGN = 2  # its file is of another line with the same vectors
States = npt.NDArray[np.int8]  # BASE, ORPHAN or FOREIGN of each slot


@dataclass(frozen=True, eq=False)
class Claims:
    """The slots that documents have by their whole keys."""

    drops: Indices  # slots that go with the documents that went
    adopted: Indices  # slots of orphans that are live from now on
    forgotten: Indices  # of `gone`: rejects, which have no slot
    open: Indices  # of `came`: documents without a slot of their own key

    def touched(self, slots: Keys) -> Integers:
        """The files that change anyway, by owner, ascending."""
        return np.unique(slots.owners[np.concatenate([self.drops, self.adopted])])


@dataclass(frozen=True, eq=False)
class Match:
    """What becomes of each document that came or went. All are indices, ascending; those of `came` or `gone` are each in one place."""

    drops: Indices  # slots that die
    adopted: Indices  # slots of orphans that are live from now on, each for a document that came
    adds: npt.NDArray[np.int64]  # (n, 2): of `came`, and the slot whose vector it takes
    remembered: Indices  # of `came`: contents that are known as rejects
    embed: Indices  # of `came`: what the engine gets
    twins: Indices  # of `came`: contents that another one in `embed` has
    forgotten: Indices  # of `gone`: rejects, which have no slot


def match(came: Keys, gone: Keys, slots: Keys, states: States, rejected: Hashes, dedupe: bool) -> Match:
    """Finds a slot, a known reject or a place in the engine's queue for each document. Equal input in any order is matched alike.

    `rejected`: contents that are remembered as rejects. `dedupe`: whether a content that is new goes to the engine once.
    Raises BulkembedError where a document that went has no slot."""
    claims = claim(came, gone, slots, states, rejected)
    return assign(came, slots, states, claims, claims.touched(slots), rejected, dedupe)


def claim(came: Keys, gone: Keys, slots: Keys, states: States, rejected: Hashes) -> Claims:
    """Gives each document that went a BASE slot, and each that came an ORPHAN slot, with its whole key, as far as there are any."""
    groups = group_keys(came, gone, slots)
    came_numbers, gone_numbers, slot_numbers = groups.split(len(came), len(gone), len(slots))
    left, drops = pair(groups, gone, gone_numbers, slots, slot_numbers, np.flatnonzero(states == BASE))
    unclaimed, adopted = pair(groups, came, came_numbers, slots, slot_numbers, np.flatnonzero(states == ORPHAN))
    known = contained(gone.contents[left], rejected)
    if not known.all():
        raise BulkembedError(
            f"{int((~known).sum()):,} of {len(gone):,} documents that went have no row in the {len(slots):,} rows of data files that "
            "were looked at: the files of the parent snapshot and its keys disagree, so nothing is published; bulkembed verify says where"
        )
    require_sum("documents that went", len(drops) + len(left), len(gone))
    return Claims(drops, adopted, left, unclaimed)


def pair(groups: Groups, keys: Keys, numbers: Indices, slots: Keys, slot_numbers: Indices, allowed: Indices) -> tuple[Indices, Indices]:
    """Documents that find no slot of their group, and the slots that the others take. `allowed`: slots that may be taken."""
    offered = slot_numbers[allowed]
    taken = np.minimum(groups.sizes(numbers), groups.sizes(offered))
    served = first_rows(numbers, keys.owners, keys.rows, taken)
    used = first_rows(offered, slots.owners[allowed], slots.rows[allowed], taken)
    require_sum("documents and their slots", int(served.sum()), int(used.sum()))
    return np.flatnonzero(~served), allowed[used]


def contained(hashes: Hashes, others: Hashes) -> Mask:
    """Which hashes are also among the others."""
    groups = group([hashes, others])
    numbers, other_numbers = groups.split(len(hashes), len(others))
    result: Mask = (groups.sizes(other_numbers) > 0)[numbers]
    return result


def assign(came: Keys, slots: Keys, states: States, claims: Claims, touched: Integers, rejected: Hashes, dedupe: bool) -> Match:
    """Decides about the open documents by their content. `touched`: owners of the files that change anyway."""
    groups = group([came.contents[claims.open], slots.contents, rejected])
    numbers, slot_numbers, rejected_numbers = groups.split(len(claims.open), len(slots), len(rejected))
    rank = ranks(numbers, came.owners[claims.open], came.rows[claims.open])
    has_slot: Mask = (groups.sizes(slot_numbers) > 0)[numbers]
    known: Mask = ~has_slot & (groups.sizes(rejected_numbers) > 0)[numbers]
    new = ~has_slot & ~known
    first = new & (rank == 0) if dedupe else new
    preference = preferences(slots, states, claims, touched)
    sources = source_slots(groups, numbers[has_slot], rank[has_slot], slots, slot_numbers, preference)
    open_rows = claims.open
    result = Match(
        drops=claims.drops,
        adopted=claims.adopted,
        adds=np.stack([open_rows[has_slot], sources], axis=1),
        remembered=open_rows[known],
        embed=open_rows[first],
        twins=open_rows[new & ~first],
        forgotten=claims.forgotten,
    )
    placed = (result.adopted, result.adds, result.remembered, result.embed, result.twins)
    require_sum("documents that came", sum(map(len, placed)), len(came))
    return result


def preferences(slots: Keys, states: States, claims: Claims, touched: Integers) -> States:
    """How gladly each slot gives its vector: 0 where its row is dead in a file that changes anyway, 1 where that is live, 2 and more
    by state where the file would stay as it is."""
    preference = np.where(np.isin(slots.owners, touched), np.int8(1), np.int8(2) + states).astype(np.int8)
    freed = (preference == 1) & (states == ORPHAN)
    freed[claims.adopted] = False
    freed[claims.drops] = True
    preference[freed] = 0
    return preference


def source_slots(groups: Groups, numbers: Indices, rank: Indices, slots: Keys, slot_numbers: Indices, preference: States) -> Indices:
    """A slot of its content for each document. Dead slots are given out in turn, so that a file keeps its size; else the first is."""
    wanted = np.flatnonzero((groups.sizes(numbers) > 0)[slot_numbers])
    wanted_numbers = slot_numbers[wanted]
    order = wanted[in_groups(wanted_numbers, preference[wanted], slots.owners[wanted], slots.rows[wanted])]
    sizes = groups.sizes(wanted_numbers)
    starts = np.cumsum(sizes) - sizes
    usable = np.maximum(groups.sizes(wanted_numbers[preference[wanted] == 0]), 1)
    result: Indices = order[starts[numbers] + rank % usable[numbers]]
    return result
