"""current.txt: the URIs of the live files of the current snapshot, one a line, for tools that know nothing of snapshots."""

from __future__ import annotations

from bulkembed.dataset import paths
from bulkembed.dataset.snapshots import Snapshot, current_snapshot, data_files
from bulkembed.storage.store import Store


def current_text(store: Store, output: str, snapshot: Snapshot) -> bytes:
    """The content of current.txt: one URI a line, in UTF-8."""
    return "".join(f"{uri}\n" for uri in data_files(store, output, snapshot)).encode()


def write_current(store: Store, output: str) -> None:
    """Makes current.txt list the files of the current snapshot.

    It looks for the current snapshot again after each write: another command may have published meanwhile, and an older list may
    have replaced a newer one."""
    while (current := current_snapshot(store, output)) is not None:
        text = current_text(store, output, current)
        if read_current(store, output) != text:
            store.put(paths.current_uri(output), text)
        if is_current(store, output, current):
            return


def read_current(store: Store, output: str) -> bytes | None:
    try:
        return store.read(paths.current_uri(output))
    except FileNotFoundError:
        return None


def current_differs(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Whether current.txt does not list the files of this snapshot, although it is current."""
    return read_current(store, output) != current_text(store, output, snapshot) and is_current(store, output, snapshot)


def is_current(store: Store, output: str, snapshot: Snapshot) -> bool:
    current = current_snapshot(store, output)
    return current is not None and current.number == snapshot.number
