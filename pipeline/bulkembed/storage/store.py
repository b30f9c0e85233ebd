"""URIs -> listings, open files and bytes; bytes -> objects. The only user of fsspec's file systems.

Objects are written atomically: an object is there whole, or not at all. For local files that is a temporary file and a rename. For
object stores `pipe_file` is one PUT (above 100 MiB a multipart upload, which s3fs aborts on error). `fs.open(path, "wb")` is never used,
since it publishes an incomplete object when its block ends with an exception.
"""

from __future__ import annotations

import io
import os
import posixpath
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import orjson
from fsspec.implementations.local import LocalFileSystem

from bulkembed.errors import ConfigError, ObjectError, StorageError
from bulkembed.storage.file_systems import file_system, protocol_of
from bulkembed.storage.listing import WILD, Listing, NameTest, StoredObject, Tree, any_name, fixed_part, list_tree
from bulkembed.storage.local_files import link, put_local, remove_tree
from bulkembed.storage.local_identity import local_info
from bulkembed.storage.local_tree import LocalTree
from bulkembed.storage.name_rules import NameRules
from bulkembed.storage.object_info import VERSION_KEYS, left_out_name, modified_of, stored_object, version_of
from bulkembed.storage.options import Side, of_side
from bulkembed.storage.remote_tree import RemoteTree, names_in
from bulkembed.storage.retry import retry
from bulkembed.storage.web_files import is_web, open_web

T = TypeVar("T")

READ_AHEAD_BYTES = 8 << 20
MIN_READ_AHEAD_BYTES, MAX_READ_AHEAD_BYTES = 1 << 20, 32 << 20
DELETE_THREADS = 16
_looking: set[tuple[str, bytes]] = set()  # protocol and options of stores without a create-only PUT, as this process has found


class Store:
    """Reads and writes objects by URI. `settings`: options for the file systems of remote URIs, and tables of options by side."""

    def __init__(self, settings: dict[str, Any] | None = None, side: Side = "output") -> None:
        self.settings, self.side = settings or {}, side
        self.chosen = of_side(self.settings, side)
        self.own = frozenset(self.settings.get(side, {}))  # names of options that the side's own table gives
        try:
            self.options = orjson.dumps(self.chosen, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise ConfigError(f"storage: holds what no file system takes: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)

    def of_source(self) -> Store:
        """The same settings for places of the source."""
        return Store(self.settings, "source")

    def _locate(self, uri: str) -> tuple[Any, str]:
        filesystem = file_system(protocol_of(uri), self.options, self.side, self.own)
        return filesystem, filesystem._strip_protocol(uri)

    def _tree(self, uri: str, rules: NameRules, is_preferred: NameTest = any_name) -> tuple[Tree, Callable[[str], str], str]:
        """The file system of `uri` to list, a function from a path in it to its URI, and the path of `uri`."""
        filesystem, path = self._locate(uri)
        tree = LocalTree(rules, is_preferred) if isinstance(filesystem, LocalFileSystem) else RemoteTree(filesystem, rules)
        return tree, filesystem.unstrip_protocol if "://" in uri else str, path

    def listing(self, uri: str, rules: NameRules | None = None, is_preferred: NameTest = any_name) -> Listing:
        """The objects below a prefix, those that a glob matches, or the one object at `uri`; and the names that are left out.

        Folders that `rules` leave out are not entered. A local file with several names is listed under a preferred one, if there is one.
        Raises StorageError where a folder cannot be listed, FileNotFoundError where nothing is there."""
        tree, uri_of, path = self._tree(uri, rules or NameRules(), is_preferred)
        root, entries = list_tree(tree, path)
        entries.sort(key=lambda entry: entry.path)
        return Listing(
            root=uri_of(root),
            is_glob=root != path,
            objects=[stored_object(entry, root, uri_of) for entry in entries if entry.kind == "file"],
            left_out=[left_out_name(entry, root, uri_of) for entry in entries if entry.kind == "left out"],
            links=[(entry.path, entry.real) for entry in tree.followed],
        )

    def objects(self, uri: str) -> list[StoredObject]:
        """All objects under a prefix, or matched by a glob, or the one object at `uri`; sorted by URI."""
        return self.listing(uri).objects

    def listed(self, folder: str) -> list[StoredObject]:
        """All objects below a folder, sorted by URI; empty where there is none. On S3 it is one request for a thousand objects.

        The memory is that of the store's listing, some 1 kB an object."""
        tree, uri_of, path = self._tree(folder.rstrip("/"), NameRules())
        files = sorted((entry for entry in tree.inside(path) if entry.kind == "file"), key=lambda entry: entry.path)
        return [stored_object(entry, path, uri_of) for entry in files]

    def root(self, uri: str) -> str:
        """The URI of the fixed part of a source: the folder before the pattern of a glob, else the place itself."""
        return self.root_and_pattern(uri)[0]

    def root_and_pattern(self, uri: str) -> tuple[str, list[str]]:
        """The fixed part of a source, and the components of the pattern after it, if it is a glob."""
        if not WILD.search(uri):
            return uri, []
        tree, uri_of, path = self._tree(uri, NameRules())
        root, pattern = fixed_part(tree, path)
        return uri_of(root), pattern

    def stands(self, uri: str) -> bool:
        """Whether there is an object or a folder at exactly this URI."""
        tree, _, path = self._tree(uri, NameRules())
        return tree.stands(path)

    def names(self, uri: str) -> list[str]:
        """Base names of what is directly in a folder; empty where there is none."""
        filesystem, path = self._locate(uri)

        def listing() -> list[str]:
            filesystem.invalidate_cache()
            try:
                return [posixpath.basename(name) for name in names_in(filesystem, path)]
            except (FileNotFoundError, NotADirectoryError):
                return []

        return sorted(name for name in retry(listing, f"listing {uri}") if name and not name.startswith("."))

    def read(self, uri: str) -> bytes:
        """A whole object, in one request. Raises FileNotFoundError where there is none."""
        filesystem, path = self._locate(uri)
        whole = {"max_concurrency": 1} if "s3" in filesystem.protocol else {}  # s3fs would ask for the size first
        return retry(lambda: cast(bytes, filesystem.cat_file(path, **whole)), f"reading {uri}")

    def read_start(self, uri: str, max_bytes: int) -> bytes:
        """The first bytes of an object, or all of it where it is no longer. One GET."""
        filesystem, path = self._locate(uri)
        # A web server may send all of it.
        return retry(lambda: cast(bytes, filesystem.cat_file(path, start=0, end=max_bytes)), f"reading {uri}")[:max_bytes]

    def version(self, uri: str) -> str:
        """The current version of the object, to compare with the version in a listing."""
        filesystem, path = self._locate(uri)
        return version_of(retry(lambda: _info(filesystem, path), f"reading {uri}"))

    def modified(self, uri: str) -> float:
        """When the object was written, in Unix seconds by the store's clock.

        Raises FileNotFoundError where there is no object, StorageError where the store does not say."""
        filesystem, path = self._locate(uri)
        time = modified_of(retry(lambda: _info(filesystem, path), f"reading {uri}"))
        if time is None:
            raise StorageError(f"{uri}: the store does not say when it was written")
        return time

    def open(self, uri: str, expected_version: str | None = None) -> BinaryIO:
        """A seekable file. Each read is one GET of a range. Wrap all use of it in `retrying`.

        Raises ObjectError where the object is gone, or has another version than `expected_version`."""
        return self._open(uri, expected_version, cache_type="none")

    def open_stream(self, uri: str, expected_version: str | None = None, expected_bytes: int = 0) -> io.BufferedReader:
        """As `open`, for reading from front to back.

        `expected_bytes`: an estimate of what will be read, so that it is one GET; 0 where that is unknown."""
        ahead_bytes = min(max(expected_bytes, MIN_READ_AHEAD_BYTES), MAX_READ_AHEAD_BYTES) if expected_bytes else READ_AHEAD_BYTES
        file = self._open(uri, expected_version, cache_type="readahead", block_size=ahead_bytes)
        # fsspec's own files split lines in Python. The buffer does it in C.
        return io.BufferedReader(cast(Any, file), 1 << 20)

    def _open(self, uri: str, expected_version: str | None, **reading: Any) -> BinaryIO:
        filesystem, path = self._locate(uri)
        try:
            file = open_web(filesystem, path, **reading) if is_web(filesystem) else cast(BinaryIO, filesystem.open(path, "rb", **reading))
            if expected_version is None:
                return file
            # An open S3 file knows its version from the request that opened it. Other files know nothing, or their size only.
            details = getattr(file, "details", None) or {}
            current = version_of(details if VERSION_KEYS.intersection(details) else _info(filesystem, path))
        except FileNotFoundError:
            if expected_version is None:
                raise
            raise self.changed(uri) from None
        if current != expected_version:
            file.close()
            raise self.changed(uri)
        return file

    def changed(self, uri: str) -> ObjectError:
        """The error for an object that has another version than it had. It looks twice: some servers make a new ETag at each request."""
        try:
            is_steady = self.version(uri) == self.version(uri)
        except FileNotFoundError:
            is_steady = True  # it is gone
        if is_steady:
            return ObjectError(f"{uri}: changed since this run was planned; run again to plan it anew")
        return ObjectError(
            f"{uri}: its server gives another version at each request, so that no run can see whether it changed; copy it elsewhere"
        )

    def retrying(self, work: Callable[[], T], what: str) -> T:
        """The result of `work`, repeated after a transient fault of the store. It must be safe to repeat."""
        return retry(work, what)

    def put(self, uri: str, data: bytes) -> None:
        """Publishes `data` at `uri` in one step. It replaces an object that is there."""
        filesystem, path = self._locate(uri)
        if isinstance(filesystem, LocalFileSystem):
            retry(lambda: put_local(Path(path), data, os.replace), f"writing {uri}")
        else:
            retry(lambda: filesystem.pipe_file(path, data), f"writing {uri}")

    def delete(self, uri: str) -> None:
        """Removes the object at `uri`, if there is one."""
        filesystem, path = self._locate(uri)

        def attempt() -> None:
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return  # it is gone already

        retry(attempt, f"deleting {uri}")

    def delete_folder(self, uri: str) -> None:
        """Removes all objects below `uri`, if there are any; also the folder itself, where the store has folders."""
        filesystem, path = self._locate(uri)
        if isinstance(filesystem, LocalFileSystem):
            retry(lambda: remove_tree(path), f"deleting {uri}")
            return
        with ThreadPoolExecutor(DELETE_THREADS) as pool:
            deque(pool.map(self.delete, [item.uri for item in self.listed(uri)]), maxlen=0)  # raises the first error

    def create(self, uri: str, data: bytes) -> bool:
        """Publishes `data` at `uri` if nothing is there; False if an object is there.

        That object may be this caller's own: a fault may have hidden that an earlier attempt succeeded. Read it again."""
        filesystem, path = self._locate(uri)

        def attempt() -> bool:
            try:
                is_local = isinstance(filesystem, LocalFileSystem)
                if put_local(Path(path), data, link) if is_local else _create_remote(filesystem, path, data):
                    _looking.add((protocol_of(uri), self.options))
            except FileExistsError:
                return False
            return True

        return retry(attempt, f"writing {uri}")

    def creates_by_looking(self, uri: str) -> bool:
        """Whether `create` has found that this store has no create-only PUT. It looks first then, and two writers may both succeed."""
        return (protocol_of(uri), self.options) in _looking


def _info(filesystem: Any, path: str) -> dict[str, Any]:
    if isinstance(filesystem, LocalFileSystem):
        return local_info(Path(path).stat())
    return cast("dict[str, Any]", filesystem.info(path))


def _create_remote(filesystem: Any, path: str, data: bytes) -> bool:
    """Whether it had to look first, since the store has no create-only PUT: then two writers at the same moment both succeed.

    Raises FileExistsError where an object is there."""
    try:
        filesystem.pipe_file(path, data, mode="create")
    except Exception as error:
        if not isinstance(error, NotImplementedError) and "NotImplemented" not in str(error):
            raise
        if filesystem.exists(path):
            raise FileExistsError(path) from None
        filesystem.pipe_file(path, data)
        return True
    return False
