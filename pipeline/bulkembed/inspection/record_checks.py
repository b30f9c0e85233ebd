"""The records beside a snapshot that the next run of its line reads, read again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from bulkembed.dataset import paths
from bulkembed.dataset.erasures import forgotten
from bulkembed.dataset.json_records import read_record
from bulkembed.dataset.manifests import read_rejected, read_sources
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.repair import Problem
from bulkembed.dataset.snapshots import Snapshot, View
from bulkembed.errors import StorageError
from bulkembed.runs import calibration
from bulkembed.storage.uris import join
from bulkembed.vectors.quantize import int8_ranges_from_text

RESTORE = "restore it from a backup"
RUN_KEY = re.compile("[0-9a-f]{32}[.]json")  # as paths.run_key_uri names it


def record_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    looks: tuple[Callable[[View, Snapshot], Iterator[Problem]], ...] = (
        numbers_problems,
        rejects_problems,
        partial(run_record_problems, snapshot.fingerprint),
        partial(run_record_problems, snapshot.line),
        ranges_problems,
        run_key_problems,
        erasure_problems,
    )
    for look in looks:
        yield from with_errors(look(view, snapshot))


def with_errors(problems: Iterator[Problem]) -> Iterator[Problem]:
    """The problems, and last what ended the look."""
    try:
        yield from problems
    except StorageError as error:
        yield Problem(str(error))


def numbers_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """Numbers have no gaps, and the head is written right after the first snapshot."""
    for number in sorted(set(range(1, view.numbers.last)) - set(view.numbers.taken)):
        yield Problem(f"{paths.numbered_uri(paths.snapshots_folder(view.output), number)}: missing; {RESTORE}")
    if view.head is None:
        where = paths.numbered_uri(paths.heads_folder(view.output), 1)
        yield Problem(f"{where}: missing; run the job again, which writes it", is_rewritten=True)


def rejects_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """Rejects that the manifest remembers."""
    store, output, token = view.store, view.output, snapshot.manifest
    found = sum(item.rejects for item in read_sources(store, output, token))
    found += sum(item.rows for item in read_rejected(store, output, token))
    if found != snapshot.rejects:
        where = paths.manifest_folder(output, token)
        yield Problem(f"{where}: has {found} rejects, snapshot {snapshot.number} says {snapshot.rejects}; {RESTORE}")


def run_record_problems(key: str, view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """The record has the types of the line's columns, which nothing else says exactly."""
    if Ledger(view.store, view.output, key).read_run_record() is None:
        yield Problem(f"{paths.run_record_uri(view.output, key)}: missing; {RESTORE}")


def ranges_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """Only of a line whose vectors have ranges."""
    if not int8_ranges_from_text(snapshot.provenance):
        return
    number, _ = calibration.newest(Ledger(view.store, view.output, snapshot.line))
    if not number:
        yield Problem(f"{paths.int8_ranges_folder(view.output, snapshot.line)}: its records are missing; {RESTORE}")


def run_key_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """A run key whose record cannot be read is taken back: its run comes again, and finds nothing new."""
    folder = paths.run_keys_folder(view.output, snapshot.line)
    for name in filter(RUN_KEY.fullmatch, view.store.names(folder)):
        uri = join(folder, name)
        try:
            number = read_record(view.store, uri, lambda record: int(record["snapshot"]))
        except StorageError as error:
            yield Problem(str(error), (uri,))
            continue
        if number not in view.numbers.taken:
            where = paths.numbered_uri(paths.snapshots_folder(view.output), number)
            yield Problem(f"{where}: missing, and {uri} names it; {RESTORE}, or run the job again")


def erasure_problems(view: View, snapshot: Snapshot) -> Iterator[Problem]:
    """The lists of erased ids, which every run heeds. Raises StorageError where one cannot be read."""
    forgotten(view.store, view.output)
    yield from ()
