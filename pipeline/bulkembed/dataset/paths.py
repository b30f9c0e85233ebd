"""The layout of an output. Every URI below an output is built here, and nowhere else.

<output>/data/<fingerprint>/<name>.parquet
<output>/_meta/runs/<fingerprint>.json                what the fingerprint stands for
<output>/_meta/int8_ranges/<key>/<number>.json        ranges of int8 vectors; the newest are valid, see runs/calibration
<output>/_meta/receipts/<fingerprint>/<name>.json     the last object written for a data file: its done marker
<output>/_meta/rejects/<fingerprint>/<name>.parquet   rejects of an embedded file, only where it has any
<output>/_meta/rejects/<line>/<object id>.parquet     rejects of the scan of an object version, only where it has any
<output>/_meta/keys/<line>/<object id>.parquet        keys of an object version
<output>/_meta/manifests/<token>/<kind>-<part>.parquet  files, sources and rejects of a snapshot, written before it
<output>/_meta/snapshots/<number>.json                what a run has published; never deleted, never written twice
<output>/_meta/tombstones/<number>.json               a snapshot that gc has expired; it stays, so that no number is used twice
<output>/_meta/tombstones/<number>.doubt              `verify --repair` has removed what the snapshot needs: the next run looks at all
<output>/_meta/clock/<token>                          written only to ask the store for the time, and removed at once
<output>/_meta/pins/<token>.json                      keeps a snapshot for a reader until it lapses
<output>/_meta/tags/<name>.json                       keeps a snapshot until the tag is removed
<output>/_meta/heads/<number>.json                    which line is current; the newest is valid
<output>/_meta/leases/<line>/<epoch>.json             a run that writes to the line, and `.beat`, its heartbeat
<output>/_meta/run_keys/<line>/<digest>.json          the snapshot of a run key
<output>/_meta/forget/<number>.json                   hashes of ids that came on the list of erased ones, or left it
<output>/_meta/exchange/<token>/                      what the tasks of one run hand to each other; removed at its end
<output>/current.txt                                  data files of the current snapshot, one URI a line
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from bulkembed.storage.uris import absolute, join


def written_folders(output: str) -> tuple[str, ...]:
    """The folders that runs write to; current.txt stands beside them."""
    return join(output, "data"), join(output, "_meta")


def data_root(output: str) -> str:
    return join(output, "data")


def data_folder(output: str, fingerprint: str) -> str:
    return join(data_root(output), fingerprint)


def data_uri(output: str, fingerprint: str, name: str) -> str:
    return join(data_folder(output, fingerprint), f"{name}.parquet")


def data_uris(output: str, fingerprint: str, names: Iterable[str]) -> list[str]:
    folder = data_folder(output, fingerprint)
    return [join(folder, f"{name}.parquet") for name in names]


def rejects_root(output: str) -> str:
    return join(output, "_meta/rejects")


def rejects_folder(output: str, key: str) -> str:
    """Rejects of embedded files, where `key` is a fingerprint; rejects of scans, where it is a line."""
    return join(rejects_root(output), key)


def rejects_uri(output: str, key: str, name: str) -> str:
    return join(rejects_folder(output, key), f"{name}.parquet")


def receipts_root(output: str) -> str:
    return join(output, "_meta/receipts")


def receipts_folder(output: str, fingerprint: str) -> str:
    return join(receipts_root(output), fingerprint)


def receipt_uri(output: str, fingerprint: str, name: str) -> str:
    return join(receipts_folder(output, fingerprint), f"{name}.json")


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


def doubt_uri(output: str, number: int) -> str:
    """It lies beside the tombstones, whose folder every run lists."""
    return join(tombstones_folder(output), f"{number:08d}.doubt")


def clock_folder(output: str) -> str:
    """Objects that are written only to ask the store for the time."""
    return join(output, "_meta/clock")


def clock_uri(output: str, token: str) -> str:
    return join(clock_folder(output), token)


def pins_folder(output: str) -> str:
    return join(output, "_meta/pins")


def erasures_folder(output: str) -> str:
    return join(output, "_meta/forget")


def tags_folder(output: str) -> str:
    return join(output, "_meta/tags")


def tag_uri(output: str, name: str) -> str:
    return join(tags_folder(output), f"{name}.json")


def heads_folder(output: str) -> str:
    return join(output, "_meta/heads")


def numbered_uri(folder: str, number: int) -> str:
    """A snapshot, a tombstone, a head, a lease, or a record of int8 ranges."""
    return join(folder, f"{number:08d}.json")


def manifests_folder(output: str) -> str:
    return join(output, "_meta/manifests")


def manifest_folder(output: str, token: str) -> str:
    return join(manifests_folder(output), token)


def keys_root(output: str) -> str:
    return join(output, "_meta/keys")


def keys_folder(output: str, line: str) -> str:
    return join(keys_root(output), line)


def keys_uri(output: str, line: str, object_id: str) -> str:
    return join(keys_folder(output, line), f"{object_id}.parquet")


def leases_root(output: str) -> str:
    return join(output, "_meta/leases")


def leases_folder(output: str, line: str) -> str:
    return join(leases_root(output), line)


def beat_uri(output: str, line: str, epoch: int) -> str:
    """The heartbeat of the lease `numbered_uri(leases_folder(output, line), epoch)`."""
    return join(leases_folder(output, line), f"{epoch:08d}.beat")


def run_keys_folder(output: str, line: str) -> str:
    return join(output, "_meta/run_keys", line)


def run_key_uri(output: str, line: str, run_key: str) -> str:
    """A run key may hold any character, so its digest is the name."""
    return join(run_keys_folder(output, line), f"{sha256(run_key.encode()).hexdigest()[:32]}.json")


def exchange_root(output: str) -> str:
    return join(output, "_meta/exchange")


def exchange_folder(output: str, token: str) -> str:
    return join(exchange_root(output), token)


def current_uri(output: str) -> str:
    return join(absolute(output), "current.txt")
