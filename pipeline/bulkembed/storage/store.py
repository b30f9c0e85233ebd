"""Object storage: list, open, read, put.

One PUT publishes: an object is there whole or not at all. On local files that is a temporary
file and a rename; on object stores `pipe_file` is one PUT (above 100 MiB a multipart upload,
which s3fs aborts on error). `fs.open(path, "wb")` is never used: leaving its block by an
exception publishes what was written so far.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import orjson
from fsspec.implementations.local import LocalFileSystem

from bulkembed.errors import ConfigError, ObjectError, SourceError
from bulkembed.storage.compression import codec_of, decompress
from bulkembed.storage.listing import WILD, Entry, LeftOut, Listing, NameTest, StoredObject, Tree, any_name, below, fixed_part, list_tree
from bulkembed.storage.local_tree import LocalTree
from bulkembed.storage.remote_tree import RemoteTree
from bulkembed.storage.retry import retry

T = TypeVar("T")

READ_AHEAD_BYTES = 8 << 20
MIN_READ_AHEAD_BYTES, MAX_READ_AHEAD_BYTES = 1 << 20, 32 << 20
ETAGS, TIMES = ("ETag", "etag"), ("mtime", "LastModified", "updated", "last_modified")  # of an object, as file systems name them
VERSION_KEYS = {*ETAGS, *TIMES}
NO_HARD_LINK_ERRORS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # file systems without hard links
# Of S3 file systems, below what the user gives. Retries happen here alone, where they are counted: s3fs and botocore make one
# attempt each. A body that stalls is given up after `read_timeout`.
S3_SETTINGS = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30, "max_pool_connections": 64}


@lru_cache(maxsize=16)
def _filesystem(protocol: str, options: bytes) -> Any:
    given = orjson.loads(options)
    if protocol != "file":
        given["use_listings_cache"] = False  # listings must show what is there now, not what an earlier call of this process saw
    if protocol in ("s3", "s3a"):
        given["config_kwargs"] = S3_SETTINGS | given.get("config_kwargs", {})
    try:
        filesystem = fsspec.filesystem(protocol, **given)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{protocol}://: {error}") from None
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
    return filesystem


class Store:
    """A place to read from and write to; `options` are passed to its fsspec file system."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.settings = options or {}
        try:
            self.options = orjson.dumps(self.settings, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise ConfigError(f"storage: holds what no file system takes: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)

    def _locate(self, uri: str) -> tuple[Any, str]:
        protocol = uri.split("://", 1)[0] if "://" in uri else "file"
        filesystem = _filesystem(protocol, b"{}" if protocol == "file" else self.options)
        return filesystem, filesystem._strip_protocol(uri)

    def _tree(self, uri: str, hidden: tuple[str, ...] = (), is_preferred: NameTest = any_name) -> tuple[Tree, Callable[[str], str], str]:
        """A file system to list, the URI of a path in it, and the path of `uri`."""
        filesystem, path = self._locate(uri)
        tree = LocalTree(hidden, is_preferred) if isinstance(filesystem, LocalFileSystem) else RemoteTree(filesystem, hidden)
        return tree, filesystem.unstrip_protocol if "://" in uri else str, path

    def listing(self, uri: str, hidden: tuple[str, ...] = (), is_preferred: NameTest = any_name) -> Listing:
        """What is at `uri`: all below a prefix, what a glob matches, or one object. Folders with names that begin with one
        of `hidden` are not entered. A local file of several names comes under one that `is_preferred`, if there is one.

        Raises StorageError where a folder cannot be listed, FileNotFoundError where nothing is there."""
        tree, uri_of, path = self._tree(uri, hidden, is_preferred)
        root, entries = list_tree(tree, path)
        entries.sort(key=lambda entry: entry.path)
        return Listing(
            root=uri_of(root),
            is_glob=root != path,
            objects=[stored_object(entry, root, uri_of) for entry in entries if entry.kind == "file"],
            left_out=[LeftOut(uri_of(entry.path), below(entry.path, root), entry.reason) for entry in entries if entry.kind == "left out"],
            links=[(entry.path, entry.real) for entry in tree.followed],
        )

    def objects(self, uri: str) -> list[StoredObject]:
        """All objects under a prefix, or matched by a glob, or the one object at `uri`; sorted by URI."""
        return self.listing(uri).objects

    def root(self, uri: str) -> str:
        """The URI of what does not vary in a source: of the folder of a glob, else of the place itself."""
        if not WILD.search(uri):
            return uri
        tree, uri_of, path = self._tree(uri)
        return uri_of(fixed_part(tree, path)[0])

    def stands(self, uri: str) -> bool:
        """Whether there is an object or a folder at `uri`, as it is spelled."""
        tree, _, path = self._tree(uri)
        return tree.stands(path)

    def names(self, uri: str) -> list[str]:
        """Base names of the objects directly under a prefix; empty where there is none."""
        filesystem, path = self._locate(uri)

        def listing() -> list[str]:
            filesystem.invalidate_cache()
            try:
                return [posixpath.basename(name) for name in filesystem.ls(path, detail=False)]
            except (FileNotFoundError, NotADirectoryError):
                return []

        return sorted(name for name in retry(listing, f"listing {uri}") if name and not name.startswith("."))

    def read(self, uri: str) -> bytes:
        filesystem, path = self._locate(uri)
        return retry(lambda: cast(bytes, filesystem.cat_file(path)), f"reading {uri}")

    def version(self, uri: str) -> str:
        """Of the object as it is now; compare with the version in a listing."""
        filesystem, path = self._locate(uri)
        return version_of(retry(lambda: cast("dict[str, Any]", filesystem.info(path)), f"reading {uri}"))

    def open(self, uri: str, expected_version: str | None = None) -> BinaryIO:
        """A seekable file of which each read is one ranged GET. Wrap the whole use of it in `retrying`.

        `expected_version`: Raises ObjectError where the object has another version, or is gone."""
        return self._open(uri, expected_version, cache_type="none")

    def open_lines(self, uri: str, expected_version: str | None = None, expected_bytes: int = 0) -> BinaryIO:
        """As `open`, to read from front to back, decompressed by its suffix.

        `expected_bytes`: about what will be read, so that it is one GET; 0 where nobody knows."""
        codec = codec_of(uri)[1]
        # A compressed object is read from its start, wherever the lines are.
        known = expected_bytes and not codec
        ahead_bytes = min(max(expected_bytes, MIN_READ_AHEAD_BYTES), MAX_READ_AHEAD_BYTES) if known else READ_AHEAD_BYTES
        file = self._open(uri, expected_version, cache_type="readahead", block_size=ahead_bytes)
        # fsspec's own files split lines in Python; the buffer does it in C.
        return cast(BinaryIO, io.BufferedReader(decompress(file, codec), 1 << 20))

    def _open(self, uri: str, expected_version: str | None, **reading: Any) -> BinaryIO:
        filesystem, path = self._locate(uri)
        try:
            file = cast(BinaryIO, filesystem.open(path, "rb", **reading))
            if expected_version is None:
                return file
            # What a file of S3 knows of itself it had from the request that opened it; others know nothing, or their size alone.
            details = getattr(file, "details", None) or {}
            current = version_of(details if VERSION_KEYS.intersection(details) else filesystem.info(path))
        except FileNotFoundError:
            if expected_version is None:
                raise
            raise changed_error(uri) from None
        if current != expected_version:
            file.close()
            raise changed_error(uri)
        return file

    def retrying(self, work: Callable[[], T], what: str) -> T:
        """`work` again after a transient fault of the store; it must be safe to repeat."""
        return retry(work, what)

    def put(self, uri: str, data: bytes) -> None:
        """Publish `data` at `uri` in one step, over whatever was there."""
        filesystem, path = self._locate(uri)
        if isinstance(filesystem, LocalFileSystem):
            retry(lambda: _put_local(Path(path), data, os.replace), f"writing {uri}")
        else:
            retry(lambda: filesystem.pipe_file(path, data), f"writing {uri}")

    def delete(self, uri: str) -> None:
        """Remove the object at `uri`, if there is one."""
        filesystem, path = self._locate(uri)

        def attempt() -> None:
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return  # as wished

        retry(attempt, f"deleting {uri}")

    def create(self, uri: str, data: bytes) -> bool:
        """Publish `data` at `uri` if nothing is there; False if something is.

        That can be our own: a fault may have hidden that an attempt went through. Read again."""
        filesystem, path = self._locate(uri)

        def attempt() -> bool:
            try:
                if isinstance(filesystem, LocalFileSystem):
                    _put_local(Path(path), data, _link)
                else:
                    _create_remote(filesystem, path, data)
            except FileExistsError:
                return False
            return True

        return retry(attempt, f"writing {uri}")


def changed_error(uri: str) -> ObjectError:
    return ObjectError(f"{uri}: changed since this run was planned; run again to plan it anew")


def version_of(info: Mapping[str, Any]) -> str:
    """What changes when an object's content does: its ETag, else its size and modification time."""
    etag = next((info[name] for name in ETAGS if info.get(name)), None)
    modified = next((info[name] for name in TIMES if info.get(name)), "")
    return str(etag).strip('"') if etag else f"{info['size']}-{modified}"


def stored_object(entry: Entry, root: str, uri_of: Callable[[str], str]) -> StoredObject:
    return StoredObject(uri_of(entry.path), below(entry.path, root), int(entry.info["size"] or 0), version_of(entry.info))


def _put_local(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot keeps readers' globs from seeing it if the process dies before the rename.
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    """Raises FileExistsError where there is something at `path`."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_HARD_LINK_ERRORS:
            raise
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


def _create_remote(filesystem: Any, path: str, data: bytes) -> None:
    """Raises FileExistsError. Where the store has no create-only PUT, two writers at the same moment both succeed."""
    try:
        filesystem.pipe_file(path, data, mode="create")
    except Exception as error:
        if not isinstance(error, NotImplementedError) and "NotImplemented" not in str(error):
            raise
        if filesystem.exists(path):
            raise FileExistsError(path) from None
        filesystem.pipe_file(path, data)
