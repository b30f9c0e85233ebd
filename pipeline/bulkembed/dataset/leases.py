"""Leases: one run at a time writes to a line.

A lease is an epoch of its line, taken by a create-only write, with heartbeats beside it. It ends when its run ends, or when the store has
seen no heartbeat for its time. A run that was paused past its lease finds a newer epoch. It can do no harm even if it does not look:
snapshots are published only onto the parent that they were planned from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bulkembed import stopping
from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, newest_number, read_record, record_bytes
from bulkembed.dataset.lease_holders import Holder, this_process
from bulkembed.dataset.snapshots import newest_of_line
from bulkembed.dataset.store_clock import store_time
from bulkembed.errors import AlreadyRunning, ConfigError, LeaseLost, StorageError
from bulkembed.storage.store import Store

IfRunning = Literal["skip", "wait", "fail"]
BEATS = 3  # heartbeats in the time of a lease
MAX_POLL_SECONDS = 5.0  # between two looks at the lease of another run
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseRecord:
    """What the epoch of a lease says. `gc` reads `base` and `seconds`."""

    holder: Holder
    base: int  # the newest snapshot of the line when the lease was taken; 0: none
    seconds: float  # without a heartbeat, after which the lease is over; 0: the run has ended


class Lease:
    """The right to write to a line, as long as no other run has taken it over."""

    def __init__(self, store: Store, output: str, line: str, epoch: int, record: LeaseRecord, waited: bool) -> None:
        self.store, self.output, self.line, self.epoch, self.record = store, output, line, epoch, record
        self.waited = waited  # another run has held it meanwhile: what was planned before may be out of date
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.beat, name="bulkembed lease", daemon=True)

    def check(self) -> None:
        """Raises LeaseLost where another run has taken the lease over. Call it before anything is published."""
        newest = newest_number(self.store, paths.leases_folder(self.output, self.line))
        if newest > self.epoch:
            other = read_lease(self.store, self.output, self.line, newest)
            raise LeaseLost(
                f"this run gave no sign of life for {self.record.seconds:g} s, and {other.holder} has taken over line {self.line}; "
                "nothing was published, what is embedded stays"
            )

    def beat(self) -> None:
        """Puts heartbeats until the lease is released. A failed one is not the last: `check` tells whether the lease still holds."""
        uri = paths.beat_uri(self.output, self.line, self.epoch)
        while not self.ended.wait(self.record.seconds / BEATS):
            try:
                self.store.put(uri, self.record.holder.run.encode())
            except StorageError as error:
                log.warning("lease of line %s: no heartbeat: %s", self.line, error)

    def release(self) -> None:
        """Ends the lease, so that the next run need not wait until it runs out."""
        self.ended.set()
        self.thread.join()
        record = asdict(self.record) | {"seconds": 0.0}
        try:
            self.store.put(paths.numbered_uri(paths.leases_folder(self.output, self.line), self.epoch), record_bytes(record))
        except StorageError as error:
            log.warning("lease of line %s: ends by itself in %g s: %s", self.line, self.record.seconds, error)


@contextmanager
def lease(store: Store, output: str, line: str, limited: bool, seconds: float, if_running: IfRunning) -> Iterator[Lease]:
    """The lease of a line for the time of the block. `limited`: whether the run builds on the line's trials.

    Where another run holds it: `skip` and `fail` raise AlreadyRunning with the exit codes 0 and 1, `wait` waits. A run whose process
    is gone, or that was silent for its time, is taken over. Raises ConfigError where the store only pretends to create objects."""
    require_create_only(store, output)
    held = take(store, output, line, limited, seconds, if_running)
    held.thread.start()
    try:
        yield held
    finally:
        held.release()


def take(store: Store, output: str, line: str, limited: bool, seconds: float, if_running: IfRunning) -> Lease:
    folder, holder, waited = paths.leases_folder(output, line), this_process(), False
    while True:
        stopping.stop.check()
        newest = newest_number(store, folder)
        if newest and (running := running_holder(store, output, line, newest)) is not None:
            refuse_running(running, line, if_running)
            waited = True
            time.sleep(min(seconds / BEATS, MAX_POLL_SECONDS))
            continue
        base = newest_of_line(store, output, line, limited)
        record = LeaseRecord(holder, base.number if base else 0, seconds)
        # A fault may have hidden that this run itself has written the epoch.
        if create_numbered(store, folder, newest + 1, asdict(record)) or read_lease(store, output, line, newest + 1).holder == holder:
            return Lease(store, output, line, newest + 1, record, waited)


def refuse_running(running: Holder, line: str, if_running: IfRunning) -> None:
    """Raises AlreadyRunning unless the run is to wait. A run waits for another one of its own process in any case."""
    if if_running == "wait" or running.is_here:
        log.info("waiting for %s, which writes to line %s", running, line)
        return
    code = 0 if if_running == "skip" else 1
    raise AlreadyRunning(f"{running} is already writing to line {line}; nothing was done (if_running = {if_running})", code)


def read_lease(store: Store, output: str, line: str, epoch: int) -> LeaseRecord:
    def parse(values: dict[str, Any]) -> LeaseRecord:
        return LeaseRecord(Holder(**values["holder"]), int(values["base"]), float(values["seconds"]))

    return read_record(store, paths.numbered_uri(paths.leases_folder(output, line), epoch), parse)


def running_holder(store: Store, output: str, line: str, epoch: int) -> Holder | None:
    """Who holds this epoch; None where its run has ended, is gone, or has been silent for its time by the store's clock."""
    record = read_lease(store, output, line, epoch)
    if not record.seconds or record.holder.is_gone:
        return None
    times = [store.modified(paths.numbered_uri(paths.leases_folder(output, line), epoch))]
    try:
        times.append(store.modified(paths.beat_uri(output, line, epoch)))
    except FileNotFoundError:
        log.debug("lease of line %s: no heartbeat yet", line)
    return record.holder if store_time(store, output) <= max(times) + record.seconds else None


def require_create_only(store: Store, output: str) -> None:
    """Raises ConfigError where the store says that it creates an object, and replaces one that is there.

    Two runs could then overwrite each other's snapshots, without an error. Two writers at once take no longer than one, and also find the
    store that looks before it writes. That one gets a warning, as does a store that refuses to create: see Store.create."""
    uri = paths.clock_uri(output, this_process().run)
    try:
        with ThreadPoolExecutor(2) as writers:
            won = list(writers.map(lambda data: store.create(uri, data), (b"1", b"2")))
        replaces = all(won) and store.create(uri, b"3")
    finally:
        store.delete(uri)
    if replaces:
        raise ConfigError(
            f"output: the store of {output} replaces objects that it is told only to create, so that two runs could overwrite each other's "
            "snapshots; take a bucket with conditional writes (on some stores, one that never had versioning)"
        )
    if all(won) or store.creates_by_looking(output):
        log.warning("%s: the store lets two writers create one object at once: never let two runs write to it at once", output)
