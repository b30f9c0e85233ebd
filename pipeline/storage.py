"""Object storage: list, open, read, put. The only user of fsspec.

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
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import orjson
from fsspec.compression import compr
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import infer_compression

from pipeline.errors import ObjectError, SourceError
from pipeline.retry import retry

T = TypeVar("T")

WILD = re.compile(r"[*?\[]")
READ_AHEAD_BYTES = 8 << 20
LEAST_AHEAD_BYTES, MOST_AHEAD_BYTES = 1 << 20, 32 << 20
MAX_LINE_BYTES = 64 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ETAGS, TIMES = ("ETag", "etag"), ("mtime", "LastModified", "updated", "last_modified")  # of an object, as file systems name them
TELLING = {*ETAGS, *TIMES}
LINKLESS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # file systems without hard links
# Of S3 file systems, below what the user gives. Retries happen here alone, where they are counted: s3fs and botocore make one
# attempt each. A body that stalls is given up after `read_timeout`.
S3_SETTINGS = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30, "max_pool_connections": 64}


@dataclass(frozen=True)
class StoredObject:
    uri: str
    relative_path: str  # below the prefix or glob that was listed
    size: int
    version: str  # changes when the content does


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
        self.options = orjson.dumps(self.settings, option=orjson.OPT_SORT_KEYS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.options == other.options

    def __hash__(self) -> int:
        return hash(self.options)

    def _locate(self, uri: str) -> tuple[Any, str]:
        protocol = uri.split("://", 1)[0] if "://" in uri else "file"
        filesystem = _filesystem(protocol, b"{}" if protocol == "file" else self.options)
        return filesystem, filesystem._strip_protocol(uri)

    def objects(self, uri: str) -> list[StoredObject]:
        """All objects under a prefix, or matched by a glob, or the one object at `uri`; sorted by URI."""
        filesystem, path = self._locate(uri)
        wild = WILD.search(path)
        root = glob_root(path)

        def listing() -> dict[str, dict[str, Any]]:
            filesystem.invalidate_cache()
            found = filesystem.glob(path, detail=True) if wild else filesystem.find(path, detail=True)
            # Over HTTP, one object is found without a word about it.
            return {name: info or filesystem.info(name) for name, info in found.items()}

        return [
            StoredObject(
                uri=filesystem.unstrip_protocol(name) if "://" in uri else name,
                relative_path=name.removeprefix(root).lstrip("/") or posixpath.basename(name),
                size=int(info["size"]),
                version=version(info),
            )
            for name, info in sorted(retry(listing, f"listing {uri}").items())
            if info["type"] == "file"
        ]

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
        return version(retry(lambda: cast("dict[str, Any]", filesystem.info(path)), f"reading {uri}"))

    def open(self, uri: str, wanted: str | None = None) -> BinaryIO:
        """A seekable file of which each read is one ranged GET. Wrap the whole use of it in `retrying`.

        `wanted`: the version it must be. Raises ObjectError where it is another one, or gone."""
        return self._open(uri, wanted, cache_type="none")

    def open_lines(self, uri: str, wanted: str | None = None, expected_bytes: int = 0) -> BinaryIO:
        """As `open`, to read from front to back, decompressed by its suffix.

        `expected_bytes`: about what will be read, so that it is one GET; 0 where nobody knows."""
        codec = infer_compression(uri)
        # A compressed object is read from its start, wherever the lines are.
        known = expected_bytes and not codec
        ahead_bytes = min(max(expected_bytes, LEAST_AHEAD_BYTES), MOST_AHEAD_BYTES) if known else READ_AHEAD_BYTES
        file = self._open(uri, wanted, cache_type="readahead", block_size=ahead_bytes)
        # fsspec's own files split lines in Python; the buffer does it in C.
        return cast(BinaryIO, io.BufferedReader(compr[codec](file, mode="r"), 1 << 20))

    def _open(self, uri: str, wanted: str | None, **reading: Any) -> BinaryIO:
        filesystem, path = self._locate(uri)
        try:
            file = cast(BinaryIO, filesystem.open(path, "rb", **reading))
            if wanted is None:
                return file
            # What a file of S3 knows of itself it had from the request that opened it; others know nothing, or their size alone.
            details = getattr(file, "details", None) or {}
            found = version(details if TELLING.intersection(details) else filesystem.info(path))
        except FileNotFoundError:
            if wanted is None:
                raise
            raise changed(uri) from None
        if found != wanted:
            file.close()
            raise changed(uri)
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


def lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines with their length in bytes. Of a line longer than MAX_LINE_BYTES only the length is kept: an archive
    of a few kilobytes can hold one line larger than memory."""
    while line := file.readline(MAX_LINE_BYTES):
        length = len(line)
        if length < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line, length
            continue
        while more := file.readline(MAX_LINE_BYTES):
            length += len(more)
            if more.endswith(b"\n"):
                break
        yield b"", length


def first_line(file: BinaryIO) -> int:
    """The byte offset of the first line of an object, behind a byte order mark; the file stands there."""
    file.seek(0)
    return file.tell() if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else file.seek(0)


def changed(uri: str) -> ObjectError:
    return ObjectError(f"{uri}: changed since this run was planned; run again to plan it anew")


def version(info: dict[str, Any]) -> str:
    """What changes when an object's content does: its ETag, else its size and modification time."""
    etag = next((info[name] for name in ETAGS if info.get(name)), None)
    modified = next((info[name] for name in TIMES if info.get(name)), "")
    return str(etag).strip('"') if etag else f"{info['size']}-{modified}"


def glob_root(path: str) -> str:
    """The folder of a glob that does not vary; any other path as it is."""
    wild = WILD.search(path)
    return posixpath.dirname(path[: wild.start()]) if wild else path


def canonical(uri: str) -> str:
    """The same for every spelling of a place, for comparing two: `s3a://` is `s3://`."""
    protocol, separator, path = uri.partition("://")
    if not separator:
        protocol, path = "file", uri
    try:
        names = fsspec.get_filesystem_class(protocol).protocol
    except (ImportError, ValueError):
        names = protocol  # unknown, or not installed: nothing can be read there either
    first = names if isinstance(names, str) else names[0]
    if first in ("file", "local"):
        return os.path.realpath(glob_root(path) or ".")
    return glob_root(f"{first}://{path}").rstrip("/")


def absolute(uri: str) -> str:
    """A place or a pattern as any other process may use it. Symbolic links stay as they were asked for."""
    if "://" in uri and not uri.startswith(("file://", "local://")):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://").removeprefix("local://")))  # noqa: PTH111, PTH100 - of a URI, which pathlib would not leave whole


def join(root: str, *parts: str) -> str:
    return "/".join((root.rstrip("/"), *parts))


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
        if error.errno not in LINKLESS:
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
