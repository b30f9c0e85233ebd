"""Local files as a tree to list. Symbolic links are followed; every real path is listed once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from bulkembed.errors import StorageError
from bulkembed.storage.listing import AGAIN, BROKEN, GONE, NOT_UTF8, SPECIAL, Entry, NameTest, any_name, below
from bulkembed.storage.local_identity import local_info
from bulkembed.storage.name_rules import NameRules
from bulkembed.storage.retry import retry

Rank = Callable[[str], tuple[bool, bool]]  # of a name; a file with several names is listed under the highest
ABSENT = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}


class LocalTree:
    """Follows symbolic links, and lists every real path once."""

    def __init__(self, rules: NameRules, is_preferred: NameTest) -> None:
        self.rules, self.is_preferred = rules, is_preferred
        self.followed: list[Entry] = []

    def stands(self, path: str) -> bool:
        try:
            Path(path).lstat()
        except OSError as error:
            return is_absent(error, path)
        return True

    def everything(self, path: str, is_wanted: NameTest = any_name) -> list[Entry]:
        if not self.stands(path or "/"):
            raise FileNotFoundError(path)
        top = retry(lambda: resolve_entry(path or "/"), f"listing {path}")
        if top.kind != "folder":
            return [top]
        entries: list[Entry] = []
        visited = {top.real: 0}
        rank = self._rank(is_wanted)
        folders = [top]
        while folders:
            links: list[Entry] = []
            while folders:
                for entry in self._entries(folders.pop()):
                    if entry.linked:
                        links.append(entry)
                    else:
                        self._visit(entry, visited, rank, folders, entries)
            # Links come last, so that a new link never replaces a name that was there before.
            for entry in sorted(links):
                self._visit(entry, visited, rank, folders, entries)
        return entries

    def inside(self, path: str) -> list[Entry]:
        return self.everything(path) if self.stands(path) and Path(path).is_dir() else []

    def children(self, path: str, stem: str) -> list[Entry]:
        if not self.stands(path or "/"):
            raise FileNotFoundError(path)
        if not Path(path or "/").is_dir():
            return []
        return self._entries(Entry(path, "folder", real=os.path.realpath(path or "/")))

    def once(self, names: list[Entry], root: str) -> list[Entry]:
        real_root = os.path.realpath(root or "/").rstrip("/")
        names.sort(key=lambda entry: (entry.real != f"{real_root}/{below(entry.path, root)}", entry.path))
        visited: dict[str, int] = {}
        entries: list[Entry] = []
        for entry in names:
            self._visit(entry, visited, self._rank(any_name), [], entries)
        return entries

    def _rank(self, is_wanted: NameTest) -> Rank:
        return lambda path: (is_wanted(path), self.is_preferred(path))

    def _visit(self, entry: Entry, visited: dict[str, int], rank: Rank, folders: list[Entry], entries: list[Entry]) -> None:
        """Adds an entry that is new to `folders` or to `entries`. A file's name of higher rank replaces the earlier name.

        `visited`: by real path, the index of a file in `entries`; for a folder any number."""
        if entry.kind == "left out":
            entries.append(entry)
            return
        at = visited.get(entry.real)
        if at is not None and (entry.kind == "folder" or rank(entry.path) <= rank(entries[at].path)):
            entries.append(listed_again(entry))
            return
        if at is not None:
            entries[at] = listed_again(entries[at])
        visited[entry.real] = len(entries)
        if entry.linked:
            self.followed.append(entry)
        (folders if entry.kind == "folder" else entries).append(entry)

    def _entries(self, folder: Entry) -> list[Entry]:
        try:
            return retry(lambda: [self._entry(item, folder.real) for item in scan_folder(folder.path or "/")], f"listing {folder.path}")
        except FileNotFoundError:
            return [Entry(f"{folder.path}/", "left out", GONE)]

    def _entry(self, item: os.DirEntry[str], real_folder: str) -> Entry:
        name, path = item.name, item.path
        reason = self.rules.reason(path) or ("" if name.isascii() or is_utf8(name) else NOT_UTF8)
        if reason:
            return Entry(f"{path}/" if is_folder(item) else path, "left out", reason)
        if item.is_symlink():
            return resolve_entry(path)
        real = f"{real_folder}/{name}" if real_folder != "/" else path
        if item.is_dir(follow_symlinks=False):
            return Entry(path, "folder", real=real)
        if not item.is_file(follow_symlinks=False):
            return Entry(path, "left out", SPECIAL)
        try:
            known = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            return Entry(path, "left out", GONE)
        return Entry(path, "file", "", local_info(known), real)


def listed_again(entry: Entry) -> Entry:
    return Entry(f"{entry.path}/" if entry.kind == "folder" else entry.path, "left out", AGAIN)


def is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a broken link
        return False


def scan_folder(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError as error:
        raise unreadable_error(folder) from error


def resolve_entry(path: str) -> Entry:
    """The file or folder that a path leads to, under the path's own name."""
    place = Path(path)
    try:
        known = place.stat()
    except OSError as error:
        is_absent(error, path)
        return Entry(path, "left out", BROKEN)
    real, linked = os.path.realpath(path), place.is_symlink()
    if stat.S_ISDIR(known.st_mode):
        return Entry(path, "folder", real=real, linked=linked)
    if not stat.S_ISREG(known.st_mode):
        return Entry(path, "left out", SPECIAL)
    return Entry(path, "file", "", local_info(known), real, linked)


def is_absent(error: OSError, path: str) -> bool:
    """False for an error that means that nothing is there. Raises every other error."""
    if isinstance(error, PermissionError):
        raise unreadable_error(path) from error
    if error.errno not in ABSENT:
        raise error
    return False


def unreadable_error(path: str) -> StorageError:
    return StorageError(f"{path}: cannot be listed: permission denied; give this user the right to read it, or name a source without it")


def is_utf8(name: str) -> bool:
    """Whether a file name is UTF-8. Python decodes other bytes as lone surrogates, which cannot be printed or stored."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
