"""The layout of an output. Every URI below an output is built here, and nowhere else.

<output>/data/<fingerprint>/<shard>.parquet
<output>/_meta/runs/<fingerprint>.json                what the fingerprint stands for
<output>/_meta/int8_ranges/<key>/<number>.json        ranges of int8 vectors; the newest are valid, see runs/calibration
<output>/_meta/rejects/<fingerprint>/<shard>.parquet  only where the shard has rejects
<output>/_meta/receipts/<fingerprint>/<shard>.json    the last object written for a shard: its done marker
<output>/_meta/snapshots/<number>.json                the last object written by a run: what readers see
<output>/_meta/tombstones/<number>.json               a snapshot that gc has expired; it stays, so that no number is used twice
<output>/current.txt                                  data files of the newest snapshot, one URI a line
"""

from __future__ import annotations

from bulkembed.storage.uris import absolute, join


def written_folders(output: str) -> tuple[str, ...]:
    """The folders that runs write to; current.txt stands beside them."""
    return join(output, "data"), join(output, "_meta")


def data_folder(output: str, fingerprint: str) -> str:
    return join(output, "data", fingerprint)


def data_uri(output: str, fingerprint: str, shard_id: str) -> str:
    return join(data_folder(output, fingerprint), f"{shard_id}.parquet")


def rejects_folder(output: str, fingerprint: str) -> str:
    return join(output, "_meta/rejects", fingerprint)


def rejects_uri(output: str, fingerprint: str, shard_id: str) -> str:
    return join(rejects_folder(output, fingerprint), f"{shard_id}.parquet")


def receipts_folder(output: str, fingerprint: str) -> str:
    return join(output, "_meta/receipts", fingerprint)


def receipt_uri(output: str, fingerprint: str, shard_id: str) -> str:
    return join(receipts_folder(output, fingerprint), f"{shard_id}.json")


def run_records_folder(output: str) -> str:
    return join(output, "_meta/runs")


def run_record_uri(output: str, fingerprint: str) -> str:
    return join(run_records_folder(output), f"{fingerprint}.json")


def int8_ranges_folder(output: str, key: str) -> str:
    return join(output, "_meta/int8_ranges", key)


def snapshots_folder(output: str) -> str:
    return join(output, "_meta/snapshots")


def tombstones_folder(output: str) -> str:
    return join(output, "_meta/tombstones")


def clock_uri(output: str, token: str) -> str:
    """An object that is written only to ask the store for the time."""
    return join(output, "_meta/clock", token)


def numbered_uri(folder: str, number: int) -> str:
    """A snapshot, a tombstone, or a record of int8 ranges."""
    return join(folder, f"{number:08d}.json")


def current_uri(output: str) -> str:
    return join(absolute(output), "current.txt")
