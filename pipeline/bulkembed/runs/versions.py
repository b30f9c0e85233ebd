"""Object versions of a source -> their keys. Each version is read once, and its keys are stored beside the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow.compute as pc

from bulkembed import stopping
from bulkembed.dataset import key_files
from bulkembed.dataset.erasures import are_in, forgotten
from bulkembed.dataset.manifests import SourceVersion
from bulkembed.dataset.snapshots import View
from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.records import Failure
from bulkembed.row_keys import Hashes, Keys, no_hashes
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import Mapper
from bulkembed.runs.row_types import TypesTooNarrow
from bulkembed.scans import Layout, Scan, ScanCounts, reasons_of
from bulkembed.source.objects import SourceObject
from bulkembed.source.widening import Misfits, scan_or_misfits


@dataclass
class Versions:
    """The keys of object versions: those in key files, and those that this process has read and not yet written."""

    job: Job
    looked_up: set[str] = field(default_factory=set)  # ids of object versions that may have a key file
    stored: set[str] = field(default_factory=set)  # of them, that have one
    held: dict[str, Scan] = field(default_factory=dict)  # by id: those that are not written
    known: dict[str, ScanCounts] = field(default_factory=dict)  # counts by id, as far as they were looked at
    layouts: dict[str, Layout] = field(default_factory=dict)  # by id: of those that were held
    erasure: int = 0  # number of the newest list of erased ids
    erased: Hashes = field(default_factory=no_hashes)  # hashes of the ids on it

    @classmethod
    def of(cls, job: Job, view: View) -> Versions:
        """Nothing is read yet, except the erased ids where there are any."""
        erased = forgotten(job.store, job.cfg.output, view.erasure) if view.erasure else no_hashes()
        return cls(job, erasure=view.erasure, erased=erased)

    def in_types_of(self, job: Job, view: View) -> Versions:
        """The versions for a job that may have other types than this one's."""
        same = self.job.carried.equals(job.carried, check_metadata=True)
        return replace(self, job=job) if same else Versions.of(job, view)

    def missing(self, objects: Sequence[SourceObject], n_objects: int) -> list[SourceObject]:
        """The objects whose keys are not known. `n_objects`: of the whole source."""
        unknown = [item.id for item in objects if item.id not in self.looked_up and self.job.types in ("settled", "recorded")]
        self.stored |= key_files.scanned(self.job.store, self.job.cfg.output, self.job.line, unknown, n_objects)
        self.looked_up.update(unknown)
        return [item for item in objects if item.id not in self.stored and item.id not in self.held]

    def read(self, objects: Sequence[SourceObject], mapper: Mapper, max_rows: int) -> list[Failure]:
        """Reads objects and holds their keys, until it holds so many. Returns those that cannot be read. Raises TypesTooNarrow."""
        found, rows = Unread(self.job), sum(len(scan.keys) for scan in self.held.values())
        for item, outcome in zip(objects, mapper.map(partial(scan_outcome, self.job), objects), strict=True):
            stopping.stop.check()
            if not isinstance(outcome, Scan):
                found.add(outcome)
                continue
            self.held[item.id] = outcome
            rows += len(outcome.keys)
            if rows > max_rows:
                break
        return found.failures_in_types()

    def read_rows(self, objects: Sequence[SourceObject], limit: int) -> tuple[list[SourceObject], list[Failure]]:
        """Reads objects in turn until they have so many rows, and holds the keys of these rows alone. Returns those objects.

        Raises TypesTooNarrow."""
        read, found, left = [], Unread(self.job), limit
        for item in objects:
            if left <= 0:
                break
            stopping.stop.check()
            outcome = scan_outcome(self.job, item)
            if not isinstance(outcome, Scan):
                found.add(outcome)
                continue
            self.held[item.id] = first_rows(outcome, left)
            left -= self.held[item.id].counts.rows
            read.append(item)
        return read, found.failures_in_types()

    def read_and_write(self, objects: Sequence[SourceObject], mapper: Mapper) -> list[Failure]:
        """Reads objects in tasks that write their key files. Returns those that cannot be read. Raises TypesTooNarrow."""
        found = Unread(self.job)
        for item, outcome in zip(objects, mapper.map(partial(write_outcome, self.job), objects), strict=True):
            stopping.stop.check()
            if isinstance(outcome, ScanCounts):
                self.known[item.id] = outcome
                self.stored.add(item.id)
            else:
                found.add(outcome)
        return found.failures_in_types()

    def write_held(self, mapper: Mapper) -> None:
        """Writes the key files of what is held, and holds it no longer."""
        if self.job.cfg.limit is not None:
            return  # the keys of a trial are those of the first rows alone
        for object_id in mapper.map(partial(write_held_scan, self.job, self.held), list(self.held)):
            self.stored.add(object_id)
            scan = self.held.pop(object_id)
            self.known[object_id], self.layouts[object_id] = scan.counts, scan.layout

    def keys(self, object_id: str) -> Keys:
        """The keys of an object version, without those of erased ids."""
        keys = self.all_keys(object_id)
        return keys.take(~are_in(keys.ids, self.erased)) if len(self.erased) else keys

    def all_keys(self, object_id: str) -> Keys:
        if object_id in self.held:
            return self.held[object_id].keys
        return key_files.read_keys(self.job.store, self.job.cfg.output, self.job.line, [object_id])

    def erased_rows(self, object_id: str) -> int:
        """How many documents of an object version have erased ids. It reads the keys only where some ids are erased."""
        return int(np.count_nonzero(are_in(self.all_keys(object_id).ids, self.erased))) if len(self.erased) else 0

    def counts(self, object_id: str) -> ScanCounts:
        if object_id in self.held:
            return self.held[object_id].counts
        return self.known[object_id]

    def looked_at(self) -> list[ScanCounts]:
        """The counts of all versions that this process has looked at: those that came since the parent."""
        return [*({item: scan.counts for item, scan in self.held.items()} | self.known).values()]

    def reasons(self) -> Counter[str]:
        """The reasons of the rejects in these versions, each with its number of rows."""
        return sum((Counter(counts.reasons) for counts in self.looked_at()), Counter[str]())

    def look_at(self, object_ids: Sequence[str]) -> None:
        """Reads the counts of these versions, as far as they are not known."""
        unknown = [object_id for object_id in object_ids if object_id not in self.held and object_id not in self.known]
        counts = key_files.read_scan_counts(self.job.store, self.job.cfg.output, self.job.line, unknown)
        self.known |= dict(zip(unknown, counts, strict=True))

    def layout(self, object_id: str) -> Layout:
        if object_id in self.held:
            return self.held[object_id].layout
        if object_id in self.layouts:
            return self.layouts[object_id]
        return key_files.read_layout(self.job.store, self.job.cfg.output, self.job.line, object_id)

    def source_version(self, item: SourceObject) -> SourceVersion:
        counts = self.counts(item.id)
        return SourceVersion(item.id, item.relative_path, counts.rows, counts.rejects)


@dataclass
class Unread:
    """The objects that gave no keys."""

    job: Job
    failures: list[Failure] = field(default_factory=list)
    misfits: list[Misfits] = field(default_factory=list)

    def add(self, outcome: Misfits | Failure) -> None:
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
        else:
            self.misfits.append(outcome)

    def failures_in_types(self) -> list[Failure]:
        """The failures. Raises TypesTooNarrow where objects need other types."""
        if self.misfits:
            raise TypesTooNarrow(self.job, self.misfits)
        return self.failures


def scan_outcome(job: Job, item: SourceObject) -> Scan | Misfits | Failure:
    """The scan of an object, or the types that it needs, or why it cannot be read.

    Once the types are settled, an id of JSON lines that does not fit is a reject."""
    rejected = {job.recipe.row_schema.id_column} if job.types == "settled" else set[str]()
    try:
        return scan_or_misfits(job.source_store, item, job.recipe, job.carried, rejected)
    except ConfigError:
        raise
    except BulkembedError as error:
        return Failure(item.uri, str(error).removeprefix(f"{item.uri}: "))


def write_outcome(job: Job, item: SourceObject) -> ScanCounts | Misfits | Failure:
    """Writes the key file of an object. Returns what it holds, or the types that it needs, or why the object cannot be read."""
    outcome = scan_outcome(job, item)
    if not isinstance(outcome, Scan):
        return outcome
    key_files.write_scan(job.store, job.cfg.output, job.line, item.id, outcome)
    return outcome.counts


def write_held_scan(job: Job, held: dict[str, Scan], object_id: str) -> str:
    key_files.write_scan(job.store, job.cfg.output, job.line, object_id, held[object_id])
    return object_id


def first_rows(scan: Scan, rows: int) -> Scan:
    """What a scan of the object's first rows would be, without deleted ones. The layout stays that of the whole object."""
    if rows >= scan.counts.rows:
        return scan
    border = np.sort(np.concatenate([scan.keys.rows, scan.rejects["row"].to_numpy()]))[rows]
    keys = scan.keys.take(scan.keys.rows < border)
    rejects = scan.rejects.filter(pc.less(scan.rejects["row"], int(border)))
    text_bytes = scan.counts.text_bytes * rows // scan.counts.rows
    counts = ScanCounts(rows, len(keys), rejects.num_rows, text_bytes, reasons=reasons_of(rejects))
    return replace(scan, keys=keys, rejects=rejects, counts=counts)
