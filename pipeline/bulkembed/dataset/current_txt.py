"""current.txt: the URIs of the live files of the current snapshot, one a line, for tools that know nothing of snapshots."""

from __future__ import annotations

from bulkembed.dataset import paths
from bulkembed.dataset.snapshots import Snapshot, View, current_snapshot, uris_of
from bulkembed.storage.store import Store


def current_text(view: View, snapshot: Snapshot) -> bytes:
    """The content of current.txt: one URI a line, in UTF-8."""
    return "".join(f"{uri}\n" for uri in uris_of(view.output, snapshot, view.manifest(snapshot).names)).encode()


def write_current(view: View) -> Snapshot | None:
    """Makes current.txt list the files of the current snapshot, which it returns. `view`: a new look.

    It looks for the current snapshot again after each write: another command may have published meanwhile, and an older list may
    have replaced a newer one."""
    while view.current is not None and not lists_current(view):
        written = view.current
        view.store.put(paths.current_uri(view.output), current_text(view, written))
        view = view.again()
        if view.current == written:
            break
    return view.current


def lists_current(view: View) -> bool:
    """Whether current.txt lists the files of the snapshot that is current in this view."""
    return view.current is not None and read_current(view.store, view.output) == current_text(view, view.current)


def read_current(store: Store, output: str) -> bytes | None:
    try:
        return store.read(paths.current_uri(output))
    except FileNotFoundError:
        return None


def current_differs(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Whether current.txt does not list the files of this snapshot, although it is current."""
    return read_current(store, output) != current_text(View(store, output), snapshot) and is_current(store, output, snapshot)


def is_current(store: Store, output: str, snapshot: Snapshot) -> bool:
    current = current_snapshot(store, output)
    return current is not None and current.number == snapshot.number
