"""A file system of fsspec, except the local one -> a tree to list."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.listing import BROKEN, GONE, SLASH, SPECIAL, WILD, Entry, NameTest, any_name
from bulkembed.storage.name_rules import NameRules
from bulkembed.storage.retry import retry

NO_NAME = re.compile(r"/(\?|[a-z]+:|$)")  # of a link of a page: a query of the page itself, or mailto: and the like
HADOOP_MARKER = "_$folder$"  # how Hadoop ends the name of an empty object that stands for a folder


class RemoteTree:
    """Lists any file system of fsspec except the local one."""

    def __init__(self, filesystem: Any, rules: NameRules) -> None:
        self.filesystem, self.rules = filesystem, rules
        self.followed: list[Entry] = []
        self.is_s3 = "s3" in filesystem.protocol
        self.is_web = "http" in filesystem.protocol
        self.dead = BROKEN if self.is_web else GONE  # why a name is left out that is listed and not there

    def stands(self, path: str) -> bool:
        if not self.is_s3:
            strict = {"strict": True} if self.is_web else {}  # else a server that fails has nothing there
            return bool(self._ask(lambda place: self.filesystem.exists(place, **strict), path))
        folder, _, name = path.rpartition("/")
        try:
            return any(entry.name == name for entry in self.children(folder, name))
        except FileNotFoundError:
            return False

    def everything(self, path: str, is_wanted: NameTest = any_name) -> list[Entry]:
        if self.is_s3 and not path:
            raise SourceError("source: s3 without the name of a bucket")
        if lists_at_once(self.filesystem):
            infos = self._ask(lambda place: self.filesystem.find(place, detail=True), path)
            entries = self._visible(list(infos.items()), path, parents(infos))
            return entries if path in infos or "/" not in path or not self.is_s3 else [*self._object_at(path), *entries]
        top = self._ask(self.filesystem.info, path)
        # Over HTTP a folder is a page of links.
        if top["type"] == "file" and top.get("mimetype") != "text/html":
            return [Entry(path, "file", "", top)]
        files: list[Entry] = []
        folders, entered = [path], {path}
        while folders:
            for entry in self._children_of(folders.pop(), path):
                if entry.kind != "folder":
                    files.append(entry)
                elif entry.path not in entered and entry.path.startswith(path):
                    entered.add(entry.path)
                    folders.append(entry.path)
        return files

    def inside(self, path: str) -> list[Entry]:
        folder, _, name = path.rpartition("/")
        if not self.is_s3 or not folder:
            return self.everything(path)
        infos = self._ask(lambda _: self.filesystem.find(folder, prefix=f"{name}/", detail=True), path)
        return self._visible(list(infos.items()), path, parents(infos))

    def _children_of(self, folder: str, top: str) -> list[Entry]:
        """The entries in a folder. One below `top` was named by a listing: it is left out by name where it is not there."""
        if folder == top:
            return self._entries(folder, self._ask(self._list, folder))
        try:
            return self.children(folder, "")
        except FileNotFoundError:
            return [Entry(f"{folder}/", "left out", self.dead)]

    def children(self, path: str, stem: str) -> list[Entry]:
        if self.is_s3 and (not path or WILD.search(path.partition("/")[0])):
            raise SourceError(f"source s3://{path or stem}: the name of a bucket cannot be a pattern")
        if self.is_s3 and stem:  # one request, however much else is in the folder
            inside = self._ask(lambda place: self.filesystem.find(place, maxdepth=1, withdirs=True, prefix=stem, detail=True), path)
            return self._entries(path, list(inside.items()))
        return self._entries(path, self._ask(self._list, f"{path.rstrip('/')}/" if self.is_web else path))

    def _list(self, folder: str) -> list[tuple[str, Any]]:
        """Names and infos in a folder. A page's links to itself in another order, and to what is no name, are dropped."""
        infos = [(info["name"], info) for info in self.filesystem.ls(folder, detail=True)]
        if not self.is_web:
            return infos
        links = {name.partition("#")[0]: info for name, info in infos}
        return [(name, info) for name, info in links.items() if not NO_NAME.match(name.removeprefix(folder.rstrip("/")))]

    def _entries(self, path: str, infos: Sequence[tuple[str, Any]]) -> list[Entry]:
        """What a listing of the folder `path` says."""
        inner = [(name, info) for name, info in infos if name.rstrip("/") != path.rstrip("/")]
        folders = {name.rstrip("/") for name, info in inner if info["type"] == "directory"}
        entries = self._visible([(name, info) for name, info in inner if info["type"] != "directory"], path, folders)
        for folder in sorted(folders):
            reason = self.rules.reason(folder)
            entries.append(Entry(f"{folder}/", "left out", reason) if reason else Entry(folder, "folder"))
        return entries

    def _object_at(self, path: str) -> list[Entry]:
        """The object that S3 may hold under the name of a folder, which `find` omits. Empty if there is none, or if access is denied."""
        bucket, key, _ = self.filesystem.split_path(path)
        try:  # `info` alone would list the folder where there is no object
            self._ask(lambda _: self.filesystem.call_s3("head_object", self.filesystem.kwargs, Bucket=bucket, Key=key), path)
        except FileNotFoundError:
            return []
        except StorageError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            return []
        info = self._ask(self.filesystem.info, path)
        return [Entry(path, "file", "", info)] if info["type"] == "file" and info["size"] else []

    def once(self, entries: list[Entry], root: str) -> list[Entry]:
        return entries

    def _visible(self, infos: list[tuple[str, Any]], root: str, folders: set[str]) -> list[Entry]:
        """The files of a listing, and the left-out names with their reasons."""
        entries: dict[str, Entry] = {}
        for name, info in infos:
            part = self.rules.left_out_part(name, root)
            if part is not None:
                entries[part[0]] = Entry(part[0], "left out", part[1])
            elif not is_marker(name, info, folders):
                entries[name] = self._entry(name, info)
        return list(entries.values())

    def _entry(self, name: str, info: Any) -> Entry:
        if name.endswith("/"):
            return Entry(name, "left out", SLASH)
        if not info or info["type"] not in ("file", "directory") or info.get("size") is None:
            try:
                info = self._ask(self.filesystem.info, name)
            except FileNotFoundError:
                return Entry(name, "left out", self.dead)
        if info["type"] != "file":
            return Entry(name, "left out", SPECIAL)
        return Entry(name, "file", "", info)

    def _ask(self, request: Callable[[str], Any], path: str) -> Any:
        def attempt() -> Any:
            self.filesystem.invalidate_cache()
            return request(path)

        return retry(attempt, f"listing {self.filesystem.unstrip_protocol(path)}")


def names_in(filesystem: Any, path: str) -> list[str]:
    """The paths of what is directly in a folder. On S3 it is one request for a thousand names, also where there is no folder.

    `ls` of s3fs would list the folder above as well. Raises FileNotFoundError or NotADirectoryError where there is none."""
    folder, _, name = path.rstrip("/").rpartition("/")
    if "s3" not in filesystem.protocol or not folder:
        return list(filesystem.ls(path, detail=False))
    return list(filesystem.find(folder, maxdepth=1, withdirs=True, prefix=f"{name}/"))


def lists_at_once(filesystem: Any) -> bool:
    """Whether one listing finds everything below a prefix, as in object stores. fsspec's own walk leaves out errors."""
    kind = type(filesystem)
    own = getattr(kind, "_find", AsyncFileSystem._find) is not AsyncFileSystem._find
    return own or kind.find is not AbstractFileSystem.find


def is_marker(name: str, info: Any, folders: set[str]) -> bool:
    """Whether an empty object is only a marker for a folder."""
    return bool(info) and info.get("size") == 0 and (name.endswith(("/", HADOOP_MARKER)) or name in folders)


def parents(names: Iterable[str]) -> set[str]:
    """All folders above these names."""
    folders: set[str] = set()
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders
