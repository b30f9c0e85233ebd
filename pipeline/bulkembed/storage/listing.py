"""A place -> what is there: one object, all objects below a folder, or the objects that a glob matches.

No name is dropped silently: it is a file, it is left out for a reason, or the listing raises. fsspec's own `walk` and `glob` omit
folders that cannot be listed, and its local listing calls every symbolic link "other".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from fsspec.utils import glob_translate

from bulkembed.errors import SourceError
from bulkembed.storage.name_rules import NameRules

WILD = re.compile(r"[*?\[]")

# Why a name is left out. The message has a count before it.
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
    path: str  # spelled from the listed place; a folder that is left out ends in a slash
    kind: Literal["file", "folder", "left out"]
    reason: str = ""  # why it is left out
    info: Mapping[str, Any] = {}  # of a file: its size, and ETag or modification time
    real: str = ""  # local files: the path without symbolic links
    linked: bool = False

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/"))


class Tree(Protocol):
    """A file system to list. It enters no folder that `rules` leave out."""

    rules: NameRules
    followed: list[Entry]  # the links that the listing went through

    def stands(self, path: str) -> bool:
        """Whether there is something at exactly this path."""
        ...

    def everything(self, path: str, is_wanted: NameTest = any_name) -> list[Entry]:
        """The object at `path`, or everything below it. A file with several names is listed under a wanted one, if there is one.

        Empty, or FileNotFoundError, where nothing is there."""
        ...

    def inside(self, path: str) -> list[Entry]:
        """Everything below a folder; empty where there is none. An object store is not asked for an object of the folder's name."""
        ...

    def children(self, path: str, stem: str) -> list[Entry]:
        """The entries directly in a folder. Names that do not start with `stem` may be missing.

        FileNotFoundError, or nothing, where there is no such folder."""
        ...

    def once(self, entries: list[Entry], root: str) -> list[Entry]:
        """The entries with each file under one name. Its other names become left-out entries."""
        ...


@dataclass(frozen=True)
class StoredObject:
    uri: str
    relative_path: str  # below the prefix or glob that was listed
    size: int
    version: str  # changes when the content does; empty where the store does not show that
    modified: float | None = None  # Unix seconds by the store's clock; None where the store does not say


@dataclass(frozen=True)
class LeftOut:
    """A name in a listing that is no object to read. The name of a folder ends in a slash."""

    uri: str
    relative_path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    root: str  # URI of the fixed part of a source: a folder, or its one object
    is_glob: bool
    objects: list[StoredObject]  # sorted by URI
    left_out: list[LeftOut]
    links: list[tuple[str, str]]  # local files: each symbolic link that was followed, and its target


def list_tree(tree: Tree, path: str) -> tuple[str, list[Entry]]:
    """The entries at `path` if that exists as it is spelled, else the entries that it matches as a glob.

    Returns the folder that relative names start from (or the one object), and the files and left-out names."""
    root, pattern = fixed_part(tree, path)
    tree.rules.root = root
    if not pattern:
        return root, tree.everything(root)
    if any(part.startswith((".", "_")) for part in pattern):
        tree.rules.hidden = ()  # the pattern asks for them
    try:
        return root, tree.once(list(matches(tree, root, pattern)), root)
    except FileNotFoundError:
        return root, []
    except ValueError as error:  # of glob_translate
        raise SourceError(f"source {path}: {error}") from None


def fixed_part(tree: Tree, path: str) -> tuple[str, list[str]]:
    """The longest start of `path` that is no pattern, and the components after it. A path that exists as spelled is no pattern."""
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
    """The files below `folder` that the components of `pattern` match, and the left-out names among them."""
    part, rest = pattern[0], pattern[1:]
    if part == "**":
        whole = re.compile(glob_translate("/".join(pattern)))

        def is_wanted(path: str) -> bool:
            return bool(whole.match(below(path, folder)))

        # A left-out folder is not entered, and names in it might match. It is therefore kept.
        yield from (entry for entry in tree.everything(folder, is_wanted) if entry.path.endswith("/") or is_wanted(entry.path))
        return
    one, fixed = re.compile(glob_translate(part)), WILD.split(part, maxsplit=1)[0]
    entries = tree.children(folder, fixed)
    exact = [entry for entry in entries if entry.name == part]
    for entry in exact or [entry for entry in entries if one.match(entry.name)]:
        if entry.kind == "folder" and rest:
            tree.followed += [entry] if entry.linked else []
            try:
                yield from matches(tree, entry.path, rest)
            except FileNotFoundError:
                yield Entry(f"{entry.path}/", "left out", GONE)
        elif entry.kind == "folder":
            yield Entry(f"{entry.path}/", "left out", MATCHED_FOLDER)
        elif not rest or entry.path.endswith("/"):
            yield entry


def may_go_through(pattern: Sequence[str], folders: Sequence[str]) -> bool:
    """Whether a glob goes through a folder, or ends above it. `folders`: the names from the fixed part of the glob to that folder."""
    for part, folder in zip(pattern[:-1], folders, strict=False):
        if part == "**":
            return True
        try:
            if part != folder and not re.match(glob_translate(part), folder):
                return False
        except ValueError:  # no pattern, which the listing tells
            return True
    return True


def below(path: str, root: str) -> str:
    """The path relative to `root`; its last component if it is `root` itself."""
    return path.removeprefix(root).removeprefix("/") or posixpath.basename(path)
