"""What is done for one fingerprint: receipts, rejects, the run record and int8 ranges."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, newest_number, read_record, require_types, write_record
from bulkembed.records import Receipt
from bulkembed.storage.store import Store

T = TypeVar("T")

READ_THREADS = 32  # receipts are small and far away: the threads wait for the store, and compute little


class Ledger:
    """The output of one fingerprint below one output."""

    def __init__(self, store: Store, output: str, fingerprint: str) -> None:
        self.store, self.output, self.fingerprint = store, output, fingerprint

    def data_uri(self, shard_id: str) -> str:
        return paths.data_uri(self.output, self.fingerprint, shard_id)

    def rejects_uri(self, shard_id: str) -> str:
        return paths.rejects_uri(self.output, self.fingerprint, shard_id)

    def receipt_uri(self, shard_id: str) -> str:
        return paths.receipt_uri(self.output, self.fingerprint, shard_id)

    def done(self) -> list[str]:
        """Ids of the published shards in source order, by one listing."""
        names = self.store.names(paths.receipts_folder(self.output, self.fingerprint))
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def read_receipt(self, shard_id: str) -> Receipt:
        return read_record(self.store, self.receipt_uri(shard_id), receipt_of)

    def read_receipts(self, shard_ids: Iterable[str]) -> Iterator[Receipt]:
        """The receipts of these shards, in the order of their ids."""
        with ThreadPoolExecutor(READ_THREADS) as pool:
            yield from pool.map(self.read_receipt, shard_ids)

    def find_receipts(self, shard_ids: Iterable[str]) -> Iterator[Receipt]:
        """As `read_receipts`, without those that are not there: a run died between the file and its receipt."""

        def find(shard_id: str) -> Receipt | None:
            try:
                return self.read_receipt(shard_id)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(READ_THREADS) as pool:
            yield from (receipt for receipt in pool.map(find, shard_ids) if receipt is not None)

    def write_receipt(self, receipt: Receipt) -> None:
        write_record(self.store, self.receipt_uri(receipt.shard), receipt.to_dict())

    @property
    def rejects_folder(self) -> str:
        return paths.rejects_folder(self.output, self.fingerprint)

    def sizes(self) -> dict[str, int]:
        """Bytes of the data files that stand, by name, by one listing."""
        folder = paths.data_folder(self.output, self.fingerprint)
        found = self.store.listed(folder)
        return {posixpath.basename(item.uri).removesuffix(".parquet"): item.size for item in found if item.uri.endswith(".parquet")}

    def remove(self, name: str) -> None:
        """Removes a data file that no snapshot lists. A crash between leaves a file without a receipt, which counts for nothing."""
        self.store.delete(self.receipt_uri(name))
        self.store.delete(self.data_uri(name))

    def read_run_record(self) -> dict[str, Any] | None:
        """What the first run of this fingerprint wrote; None where no run has begun."""
        try:
            return read_record(self.store, paths.run_record_uri(self.output, self.fingerprint), run_record_of)
        except FileNotFoundError:
            return None

    def read_carried_schema(self) -> pa.Schema | None:
        """The schema of the id and the kept columns, as the first run of this fingerprint set it; None where no run has begun."""
        record = self.read_run_record()
        return record and carried_schema_of(record)

    def write_run_record(self, carried: pa.Schema, provenance: dict[str, str], limit: int | None = None) -> None:
        """Says what the fingerprint stands for, and proves that the output can be written to. `limit`: of a trial."""
        record = {
            "limit": limit,
            "fingerprint": self.fingerprint,
            "carried": {field.name: str(field.type) for field in carried},
            "carried_schema": base64.b64encode(carried.serialize().to_pybytes()).decode(),
            "provenance": provenance,
        }
        write_record(self.store, paths.run_record_uri(self.output, self.fingerprint), record)

    def read_int8_ranges(self, parse: Callable[[dict[str, Any]], T]) -> tuple[int, T | None]:
        """Number and record of the newest int8 ranges of this key (see runs/calibration); (0, None) where there are none."""
        folder = paths.int8_ranges_folder(self.output, self.fingerprint)
        newest = newest_number(self.store, folder)
        return newest, read_record(self.store, paths.numbered_uri(folder, newest), parse) if newest else None

    def create_int8_ranges(self, number: int, record: dict[str, Any]) -> None:
        """Publishes int8 ranges unless another run took the number: call `read_int8_ranges` again."""
        create_numbered(self.store, paths.int8_ranges_folder(self.output, self.fingerprint), number, record)


def receipt_of(record: dict[str, Any]) -> Receipt:
    receipt = Receipt.from_dict(record)
    require_types(receipt.counts)
    require_types(receipt)
    return receipt


def run_record_of(record: dict[str, Any]) -> dict[str, Any]:
    """The record itself. Raises KeyError, TypeError, ValueError or OSError where it is none."""
    carried_schema_of(record)
    if not isinstance(record["limit"], int | None) or not isinstance(record["provenance"], dict):
        raise TypeError("limit or provenance has another type")
    return record


def carried_schema_of(record: dict[str, Any]) -> pa.Schema:
    """The schema of the id and the kept columns in a run record."""
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(record["carried_schema"])))


def fingerprints(store: Store, output: str) -> list[str]:
    """Fingerprints of all runs that have begun below an output."""
    return [name.removesuffix(".json") for name in store.names(paths.run_records_folder(output))]
