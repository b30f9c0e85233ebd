"""The keys of objects and files -> buckets of keys in an exchange, by a hash of theirs. Each bucket is one task's work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bulkembed.dataset.file_keys import prefixes_of
from bulkembed.row_keys import Hashes, Keys
from bulkembed.runs.exchange import Exchange, MemoryExchange, StoreExchange
from bulkembed.runs.joins import Mask, require_sum
from bulkembed.runs.mapper import LocalMapper, Mapper
from bulkembed.runs.matching import BASE

KEY_BYTES = 60  # in the exchange
ROWS_HERE = 2_500_000  # keys that are few, and stay in this process: one thread joins them in 0.3 GB
PARTITION_ROWS, MAX_PARTITION_ROWS = 500_000, 4_000_000  # keys of a bucket: a task that joins them holds 0.15 to 0.8 GB
BATCH_ROWS, MAX_BATCH_ROWS = 500_000, 1_000_000  # keys that a task reads and splits: it holds them three times
FEW_BUCKETS = 32  # beyond these buckets grow, since each is as many objects in the exchange as there are batches
READERS = 4  # objects or files that a task reads side by side: each thread keeps some 10 MB
Prefixes = npt.NDArray[np.uint32]  # the first four bytes of content hashes


@dataclass(frozen=True)
class Owner:
    """A source object or a data file with documents."""

    number: int  # what keys call it
    place: Any  # what `KeySet.read` takes: an object id, a file's name
    documents: int
    state: int = BASE  # of a data file: see matching


@dataclass(frozen=True)
class KeySet:
    """The keys of some objects or files."""

    owners: Sequence[Owner]
    read: Callable[[Any], Keys]  # the place of an owner -> its keys; their `owners` are set by who calls it

    @property
    def documents(self) -> int:
        return sum(owner.documents for owner in self.owners)


@dataclass(frozen=True)
class Partitions:
    """How many buckets there are, where their keys lie, and who works on them."""

    buckets: int
    exchange: Exchange
    mapper: Mapper


@dataclass
class Workplace:
    """Who can work on the keys of a run, and where the keys of many documents lie meanwhile."""

    mapper: Callable[[int], Mapper]  # what runs functions on so many bytes
    exchange: StoreExchange
    is_used: bool = False  # whether something may lie in the exchange

    def partitions(self, documents: int) -> Partitions:
        """As many buckets as so many keys need. Few keys stay in this process."""
        if documents <= ROWS_HERE:
            return in_this_process()
        self.is_used = True
        buckets = -(-documents // piece(documents, PARTITION_ROWS, MAX_PARTITION_ROWS))
        return Partitions(buckets, self.exchange, self.mapper(documents * KEY_BYTES))

    def used_exchange(self) -> StoreExchange:
        """The exchange, for other things than keys."""
        self.is_used = True
        return self.exchange

    def clear(self) -> None:
        """Removes what lies there. A night of few documents has nothing to remove, and does not ask the store."""
        if self.is_used:
            self.exchange.remove()

    def after_embedding(self, partitions: Partitions) -> Partitions:
        """The same buckets with a new mapper. Tasks of the old one would wait for ever for the cores that embedding actors hold."""
        if partitions.buckets == 1:
            return partitions
        return replace(partitions, mapper=self.mapper(partitions.buckets * PARTITION_ROWS * KEY_BYTES))


def in_this_process() -> Partitions:
    """One bucket in memory."""
    return Partitions(1, MemoryExchange(), LocalMapper(1))


def piece(documents: int, at_least: int, at_most: int) -> int:
    """How many of so many documents are worked on at once."""
    return min(at_most, max(at_least, documents // FEW_BUCKETS))


def split(name: str, keys: KeySet, by: Literal["ids", "contents"], wanted: Prefixes | None, partitions: Partitions) -> None:
    """Writes keys into the exchange by the bucket of one of their hashes. `wanted`: only rows with such contents."""
    batches = enumerate(batches_of(keys.owners, piece(keys.documents, BATCH_ROWS, MAX_BATCH_ROWS)))
    for _ in partitions.mapper.map(partial(split_batch, name, keys.read, by, wanted, partitions), batches):
        pass


def batches_of(owners: Sequence[Owner], max_documents: int) -> Iterator[list[Owner]]:
    """Owners in batches of up to so many documents, or of one owner."""
    batch: list[Owner] = []
    documents = 0
    for owner in owners:
        if batch and documents + owner.documents > max_documents:
            yield batch
            batch, documents = [], 0
        batch.append(owner)
        documents += owner.documents
    if batch:
        yield batch


def split_batch(
    name: str,
    read: Callable[[Any], Keys],
    by: Literal["ids", "contents"],
    wanted: Prefixes | None,
    partitions: Partitions,
    batch: tuple[int, list[Owner]],
) -> None:
    producer, owners = batch
    keys = Keys.concat(list(LocalMapper(READERS).map(partial(keys_of_owner, read, wanted), owners)))
    partitions.exchange.write(name, producer, in_buckets(keys, getattr(keys, by), partitions.buckets))


def keys_of_owner(read: Callable[[Any], Keys], wanted: Prefixes | None, owner: Owner) -> Keys:
    keys = read(owner.place).owned_by(owner.number)
    require_sum(f"documents of {owner.place}", len(keys), owner.documents)
    return keys if wanted is None else keys.take(np.flatnonzero(among(prefixes_of(keys.contents), wanted)))


def in_buckets(keys: Keys, hashes: Hashes, buckets: int) -> dict[int, Keys]:
    if buckets == 1:
        return {0: keys}
    numbers = buckets_of(hashes, buckets)
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(buckets + 1))
    return {bucket: keys.take(order[bounds[bucket] : bounds[bucket + 1]]) for bucket in range(buckets)}


def buckets_of(hashes: Hashes, buckets: int) -> npt.NDArray[np.uint16]:
    return ((hashes[:, 0] ^ hashes[:, 1]) % np.uint64(buckets)).astype(np.uint16)


def among(values: Prefixes, wanted: Prefixes) -> Mask:
    """Which values are among these, which are sorted."""
    if not len(wanted):
        return np.zeros(len(values), np.bool_)
    found: Mask = wanted[np.minimum(np.searchsorted(wanted, values), len(wanted) - 1)] == values
    return found
