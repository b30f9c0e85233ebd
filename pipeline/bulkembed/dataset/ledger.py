"""What is done: receipts, rejects, snapshots. The only place that knows the output's layout.

<output>/data/<fingerprint>/<shard>.parquet
<output>/_meta/runs/<fingerprint>.json                what the fingerprint stands for
<output>/_meta/ranges/<key>/<number>.json             of int8 vectors; the newest hold, see calibration
<output>/_meta/rejects/<fingerprint>/<shard>.parquet  only where there are any
<output>/_meta/receipts/<fingerprint>/<shard>.json    written last of a shard: the done marker
<output>/_meta/snapshots/<number>.json                written last of a run: what readers see
<output>/current.txt                                  files of the newest snapshot, one URI a line
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
import pyarrow as pa

from bulkembed import schema
from bulkembed.errors import SourceError, StorageError
from bulkembed.records import Counts, Receipt, Snapshot
from bulkembed.storage.store import Store, absolute, join

READ_THREADS = 32  # receipts are small and far away: this waits, it does not compute
T = TypeVar("T")
PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class Ledger:
    """The output of one configuration (fingerprint) below one root."""

    def __init__(self, store: Store, output: str, fingerprint: str) -> None:
        self.store, self.output, self.fingerprint = store, output, fingerprint

    def data(self, shard_id: str) -> str:
        return join(self.output, "data", self.fingerprint, f"{shard_id}.parquet")

    def rejects(self, shard_id: str) -> str:
        return join(self.output, "_meta/rejects", self.fingerprint, f"{shard_id}.parquet")

    def receipt(self, shard_id: str) -> str:
        return join(self.output, "_meta/receipts", self.fingerprint, f"{shard_id}.json")

    def done(self) -> list[str]:
        """Ids of the published shards, in source order, by one listing."""
        names = self.store.names(join(self.output, "_meta/receipts", self.fingerprint))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def read_receipts(self, shard_ids: Iterable[str]) -> Iterator[Receipt]:
        """Receipts in the order asked for."""

        def one(shard_id: str) -> Receipt:
            return record_at(self.store, self.receipt(shard_id), Receipt.from_dict)

        with ThreadPoolExecutor(READ_THREADS) as pool:
            yield from pool.map(one, shard_ids)

    def write_receipt(self, receipt: Receipt) -> None:
        self.store.put(self.receipt(receipt.shard), orjson.dumps(receipt.to_dict(), option=PRETTY))

    def forget(self, shard_id: str) -> None:
        """Makes a published shard undone. Its data stay where readers find them until it is published anew."""
        self.store.delete(self.receipt(shard_id))
        self.store.delete(self.rejects(shard_id))

    def with_rejects(self, shard_ids: Iterable[str], reasons: set[str]) -> list[Receipt]:
        """Receipts of the shards that have rejects, for one of these reasons where any are named."""

        def wanted(receipt: Receipt) -> bool:
            rejects = schema.table_of(self.store.read(self.rejects(receipt.shard)), ["reason"])
            return bool(reasons.intersection(rejects["reason"].to_pylist()))

        return [each for each in self.read_receipts(shard_ids) if each.counts.rejects and (not reasons or wanted(each))]

    def run(self) -> dict[str, Any] | None:
        """What the first run of this fingerprint wrote down, or None."""
        try:
            return record_at(self.store, self._run(), dict)
        except FileNotFoundError:
            return None

    def carried(self) -> pa.Schema | None:
        """Schema of the id and the kept columns, as the first run of this fingerprint set it."""
        record = self.run()
        return record and pa.ipc.read_schema(pa.BufferReader(base64.b64decode(record["carried_schema"])))

    def write_run(self, carried: pa.Schema, config: dict[str, Any], provenance: dict[str, str]) -> None:
        """Says what the fingerprint stands for, and that the output can be written to. `config`: see RunConfig.remembered."""
        record = {
            "fingerprint": self.fingerprint,
            "config": config,
            "carried": {field.name: str(field.type) for field in carried},
            "carried_schema": base64.b64encode(carried.serialize().to_pybytes()).decode(),
            "provenance": provenance,
        }
        self.store.put(self._run(), orjson.dumps(record, option=PRETTY))

    def ranges(self) -> tuple[int, dict[str, Any] | None]:
        """Number and record (see calibration) of the newest int8 ranges of this key; (0, None) where there are none."""
        newest = newest_of(self.store, self._ranges())
        return newest, record_at(self.store, join(self._ranges(), numbered(newest)), dict) if newest else None

    def create_ranges(self, number: int, record: dict[str, Any]) -> None:
        """Publishes int8 ranges unless another run took the number: read `ranges` again."""
        self.store.create(join(self._ranges(), numbered(number)), orjson.dumps(record, option=PRETTY))

    def _ranges(self) -> str:
        return join(self.output, "_meta/ranges", self.fingerprint)

    def begun(self) -> bool:
        """Whether a run has begun here: with this fingerprint, or with int8 ranges of this key."""
        return self.run() is not None or self.ranges()[0] > 0

    def _run(self) -> str:
        return join(self.output, "_meta/runs", f"{self.fingerprint}.json")

    def publish_snapshot(
        self, shards: list[str], source: str, provenance: dict[str, str], guard: Callable[[Snapshot, Snapshot], None]
    ) -> Snapshot:
        """Makes these shards the dataset, unless the newest snapshot says so already.

        The number is taken with a create-only write; who loses the race reads again and tries the next. `guard` sees the
        newest snapshot and the one that would follow it, and raises where it must not."""
        counts = sum((receipt.counts for receipt in self.read_receipts(shards)), Counts())
        for _ in range(100):
            newest = newest_snapshot(self.store, self.output)
            snapshot = Snapshot(
                number=newest.number + 1 if newest else 1,
                fingerprint=self.fingerprint,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                source=source,
                shards=shards,
                documents=counts.documents,
                rejects=counts.rejects,
                provenance=provenance,
            )
            if newest is not None and newest.same_dataset(snapshot):
                write_current(self.store, self.output)
                return newest
            if newest is not None:
                guard(newest, snapshot)
            if self.store.create(snapshot_uri(self.output, snapshot.number), orjson.dumps(snapshot.to_dict(), option=PRETTY)):
                write_current(self.store, self.output)
                return snapshot
        raise StorageError(f"{self.output}: 100 other runs took the next snapshot number first; run again")


def record_at(store: Store, uri: str, made_of: Callable[[dict[str, Any]], T]) -> T:
    """Raises FileNotFoundError where there is none, StorageError where it is not what bulkembed has written."""
    data = store.read(uri)
    try:
        return made_of(orjson.loads(data))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{uri}: is damaged: {type(error).__name__}: {error}") from error


def current_uri(output: str) -> str:
    """Where `files` stand for readers, as `bulkembed files` prints them."""
    return join(absolute(output), "current.txt")


def files(output: str, snapshot: Snapshot) -> bytes:
    """URIs of the live data files, in source order, one a line. Only `output` has characters that need an encoding."""
    folder = join(absolute(output), "data", snapshot.fingerprint)
    return "".join(f"{folder}/{shard}.parquet\n" for shard in snapshot.shards).encode()


def write_current(store: Store, output: str) -> None:
    """Makes current.txt say what the newest snapshot says. Whoever writes it looks again afterwards: another run may have
    published meanwhile, and an older list may have come in over a newer one."""
    while (newest := newest_snapshot(store, output)) is not None:
        wanted = files(output, newest)
        if read_current(store, output) != wanted:
            store.put(current_uri(output), wanted)
        if newest_number(store, output) == newest.number:
            return


def read_current(store: Store, output: str) -> bytes | None:
    try:
        return store.read(current_uri(output))
    except FileNotFoundError:
        return None


def current_differs(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Whether readers of current.txt miss this snapshot, while it is the newest."""
    return read_current(store, output) != files(output, snapshot) and newest_number(store, output) == snapshot.number


def snapshot_uri(output: str, number: int) -> str:
    return join(output, "_meta/snapshots", numbered(number))


def numbered(number: int) -> str:
    return f"{number:08d}.json"


def newest_of(store: Store, folder: str) -> int:
    """The highest number of the objects in a folder; 0 where there is none."""
    return max((int(name[:-5]) for name in store.names(folder) if name[:-5].isdigit()), default=0)


def newest_number(store: Store, output: str) -> int:
    """0 where there is no snapshot."""
    return newest_of(store, join(output, "_meta/snapshots"))


def newest_snapshot(store: Store, output: str) -> Snapshot | None:
    number = newest_number(store, output)
    if not number:
        return None
    return record_at(store, snapshot_uri(output, number), lambda values: Snapshot(**values))


def dataset(store: Store, output: str) -> tuple[Ledger, Snapshot]:
    """The newest finished dataset below `output`. Raises SourceError where no run has finished yet."""
    snapshot = newest_snapshot(store, output)
    if snapshot is None:
        runs = [name.removesuffix(".json") for name in store.names(join(output, "_meta/runs"))]
        begun = f"; runs begun: {', '.join(runs)}; run the job again to finish one" if runs else ""
        raise SourceError(f"output {output}: no finished dataset there (no snapshot){begun}")
    return Ledger(store, output, snapshot.fingerprint), snapshot
