"""What lies at a place: one object, all objects below a folder, or those that a glob matches.

No name vanishes: it is a file, or it comes back with the reason why it is left out, or the listing raises. fsspec's own
`walk` and `glob` omit folders that cannot be listed, and its local listing calls every symbolic link "other".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from fsspec.utils import glob_translate

from bulkembed.errors import SourceError

WILD = re.compile(r"[*?\[]")

# Why a name is left out; a count stands before it.
HIDDEN = "hidden by a leading dot or underscore"
AGAIN = "linked to what is listed under another name"
BROKEN = "broken link"
SPECIAL = "neither file nor folder"
GONE = "gone while it was listed"
NOT_UTF8 = "with a name that is not UTF-8"
SLASH = "with a name that ends in a slash"
MATCHED_FOLDER = "folder that the pattern matches (add /** for what is in it)"


NameTest = Callable[[str], bool]


def any_name(path: str) -> bool:
    return bool(path)


class Entry(NamedTuple):
    path: str  # as spelled from the place that is listed; a folder that is left out ends in a slash
    kind: Literal["file", "folder", "left out"]
    reason: str = ""  # of what is left out
    info: Mapping[str, Any] = {}  # of a file: its size, and what tells its version
    real: str = ""  # local: the path without symbolic links
    linked: bool = False

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/"))


class Tree(Protocol):
    """A file system to list. It enters no folder whose name begins with one of `hidden`."""

    hidden: tuple[str, ...]
    followed: list[Entry]  # the links that the listing went through

    def stands(self, path: str) -> bool:
        """Whether there is something at `path` as it is spelled."""
        ...

    def everything(self, path: str, is_wanted: NameTest = any_name) -> list[Entry]:
        """The object at `path`, or all below it; a file of several names under one that `is_wanted`, if there is one. Empty or
        FileNotFoundError where nothing is there."""
        ...

    def children(self, path: str, stem: str) -> list[Entry]:
        """What is directly in a folder; names that do not begin with `stem` may be missing."""
        ...

    def once(self, entries: list[Entry], root: str) -> list[Entry]:
        """Each file under one name; its other names are left out."""
        ...


@dataclass(frozen=True)
class StoredObject:
    uri: str
    relative_path: str  # below the prefix or glob that was listed
    size: int
    version: str  # changes when the content does


@dataclass(frozen=True)
class LeftOut:
    """A name that a listing met and that is no object to read. That of a folder ends in a slash."""

    uri: str
    relative_path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    root: str  # URI of what does not vary in a source: a folder, or the one object that it is
    is_glob: bool
    objects: list[StoredObject]  # sorted by URI
    left_out: list[LeftOut]
    links: list[tuple[str, str]]  # local: each symbolic link that was followed, and what it leads to


def list_tree(tree: Tree, path: str) -> tuple[str, list[Entry]]:
    """What is at `path`: a place that exists as it is spelled, else what it matches as a glob.

    Returns the folder below which names count (or the one object) and its files, with what is left out."""
    root, pattern = fixed_part(tree, path)
    if not pattern:
        return root, tree.everything(root)
    if any(part.startswith((".", "_")) for part in pattern):
        tree.hidden = ()  # the pattern asks for them
    try:
        return root, tree.once(list(matches(tree, root, pattern)), root)
    except ValueError as error:  # of glob_translate
        raise SourceError(f"source {path}: {error}") from None


def fixed_part(tree: Tree, path: str) -> tuple[str, list[str]]:
    """The longest beginning of `path` that is no pattern, and the components behind it. What exists as it is spelled is no pattern."""
    parts = path.split("/")
    first_wild = next((number for number, part in enumerate(parts) if WILD.search(part)), len(parts))
    if first_wild == len(parts) or tree.stands(path):
        return path, []
    root, pattern = "/".join(parts[:first_wild]), parts[first_wild:]
    while not WILD.search(pattern[0]) or tree.stands(f"{root}/{pattern[0]}"):
        root, pattern = f"{root}/{pattern[0]}", pattern[1:]
        if not pattern:
            break
    return root, pattern


def matches(tree: Tree, folder: str, pattern: list[str]) -> Iterator[Entry]:
    """Files below `folder` that the components of `pattern` match, and what of them is left out."""
    part, rest = pattern[0], pattern[1:]
    if part == "**":
        whole = re.compile(glob_translate("/".join(pattern)))

        def is_wanted(path: str) -> bool:
            return bool(whole.match(below(path, folder)))

        # Nobody looked into a folder that is left out, so what is in it may match.
        yield from (entry for entry in tree.everything(folder, is_wanted) if entry.path.endswith("/") or is_wanted(entry.path))
        return
    one, fixed = re.compile(glob_translate(part)), WILD.split(part, maxsplit=1)[0]
    entries = tree.children(folder, fixed)
    exact = [entry for entry in entries if entry.name == part]
    for entry in exact or [entry for entry in entries if one.match(entry.name)]:
        if entry.kind == "folder" and rest:
            tree.followed += [entry] if entry.linked else []
            yield from matches(tree, entry.path, rest)
        elif entry.kind == "folder":
            yield Entry(f"{entry.path}/", "left out", MATCHED_FOLDER)
        elif not rest or entry.path.endswith("/"):
            yield entry


def below(path: str, root: str) -> str:
    """`path` as seen from `root`; its last component where that is `root` itself."""
    return path.removeprefix(root).removeprefix("/") or posixpath.basename(path)
