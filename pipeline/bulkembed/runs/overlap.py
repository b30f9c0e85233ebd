"""A source and an output -> ConfigError where they overlap: a run must never read what it writes. And an output that is a file."""

from __future__ import annotations

import posixpath

from bulkembed.dataset.paths import written_folders
from bulkembed.errors import ConfigError
from bulkembed.runs.blame import blaming_source
from bulkembed.storage.listing import may_go_through
from bulkembed.storage.local_paths import file_in_the_way
from bulkembed.storage.store import Store
from bulkembed.storage.uris import canonical


def refuse_overlap(store: Store, source: str, output: str) -> None:
    """Raises ConfigError where one of the two lies inside the other."""
    with blaming_source():
        root, pattern = store.root_and_pattern(source)
    read, place = plain_place(root), canonical(output)
    below = place.removeprefix(f"{read}/").split("/") if place.startswith(f"{read}/") else []
    if overlap(read, place) and may_go_through(pattern, below):
        raise ConfigError(f"output: {output} and the source {source} lie inside one another; give the output a place of its own")


def refuse_file(output: str) -> None:
    """Raises ConfigError where the output can be no folder. A plan writes nothing, and would not notice."""
    if file := file_in_the_way(output):
        raise ConfigError(f"output: cannot be {output}, since {file} is a file; name a folder")


def refuse_linked_output(links: list[tuple[str, str]], output: str) -> None:
    """As `refuse_overlap`, for the symbolic links that a listing followed. `links`: each link with its real target."""
    for link, target in links:
        if overlap(target, canonical(output)):
            raise ConfigError(f"output: {output} and {target}, to which the link {link} of the source leads, lie inside one another")


def overlap(read: str, output: str) -> bool:
    """Whether reading below `read` would meet files that a run writes below `output`."""
    return within(output, read) or any(within(read, folder) for folder in written_folders(output))


def plain_place(uri: str) -> str:
    """The canonical URI without `//`, `.` and `..` in its path: a store may take them as they are, or as a file system does."""
    scheme, separator, path = canonical(uri).partition("://")
    return f"{scheme}://{posixpath.normpath(path)}" if separator else scheme


def within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(f"{outer.rstrip('/')}/")
