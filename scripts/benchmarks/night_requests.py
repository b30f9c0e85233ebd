"""What a night reads and writes where one object of many has changed: requests and bytes, by the folder that they go to.

The run is in this process, on a file system in memory that counts.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.benchmarks.material import Row, model_folder

ROWS_PER_OBJECT = 20
PLACE = "counted://night"


class CountedFiles(MemoryFileSystem):  # type: ignore[misc]
    """Objects in memory, with ETags. Every request is counted."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[Counter[tuple[str, str]]] = Counter()
    bytes_read: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("counted:/"))
        return stripped

    @classmethod
    def count(cls, kind: str, path: str, size: int = 0) -> None:
        cls.requests[kind, folder_of(path)] += 1
        cls.bytes_read[folder_of(path)] += size

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        data: bytes = super().cat_file(path, start, end, **more)
        self.count("get", path, len(data))
        return data

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **more)
        return CountedFile(self, path, self.store[self._strip_protocol(path)].getvalue())

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        self.count("put", path)
        super().pipe_file(path, value, mode, **more)

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        self.count("head", path)
        return self.with_etag(super().info(path, **more))

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **more: Any) -> Any:
        self.count("list", path)
        found = super().find(path, maxdepth, withdirs, detail=True, **more)
        return {name: self.with_etag(entry) for name, entry in found.items()} if detail else list(found)

    def ls(self, path: str, detail: bool = True, **more: Any) -> list[Any]:
        self.count("list", path)
        entries = super().ls(path, detail=True, **more)
        return [self.with_etag(entry) for entry in entries] if detail else [entry["name"] for entry in entries]

    def with_etag(self, entry: dict[str, Any]) -> dict[str, Any]:
        file: MemoryFile | None = self.store.get(entry["name"])
        return entry if file is None else entry | {"ETag": hashlib.md5(file.getvalue(), usedforsecurity=False).hexdigest()}


class CountedFile(io.BytesIO):
    """An open object: each read is one request."""

    def __init__(self, filesystem: CountedFiles, path: str, data: bytes) -> None:
        super().__init__(data)
        self.filesystem, self.path = filesystem, path

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.filesystem.count("get", self.path, len(data))
        return data


def folder_of(path: str) -> str:
    """`in`, or a folder of the output: `data`, `_meta/keys`, ..."""
    parts = path.removeprefix(PLACE).strip("/").split("/")
    parts = parts[1:] if parts[:1] == ["night"] else parts
    if parts[:1] != ["out"]:
        return parts[0]
    return "/".join(parts[1:3]) if parts[1:2] == ["_meta"] else "/".join(parts[1:2])


def one_changed_object(objects: int) -> Row:
    """Requests and bytes of a night in which one of so many objects has changed."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    CountedFiles.store.clear()
    store = Store()
    for number in range(objects):
        store.put(f"{PLACE}/in/{number:07d}.parquet", object_bytes(number, "first"))
    cfg = configuration()
    run(cfg, lambda progress: None, executor()).require_complete()
    store.put(f"{PLACE}/in/{objects // 2:07d}.parquet", object_bytes(objects // 2, "second"))
    CountedFiles.requests.clear()
    CountedFiles.bytes_read.clear()
    run(cfg, lambda progress: None, executor()).require_complete()
    requests = {f"{kind} {folder}": count for (kind, folder), count in sorted(CountedFiles.requests.items())}
    sizes = {f"bytes {folder}": size for folder, size in sorted(CountedFiles.bytes_read.items()) if size}
    return {"objects": objects, "rows_of_each": ROWS_PER_OBJECT, **requests, **sizes}


def object_bytes(number: int, version: str) -> bytes:
    ids = range(number * ROWS_PER_OBJECT, (number + 1) * ROWS_PER_OBJECT)
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": ids, "text": [f"document {each} in its {version} version" for each in ids]}), sink)
    return sink.getvalue()


def configuration() -> RunConfig:
    values = {"source": f"{PLACE}/in", "output": f"{PLACE}/out", "model": str(model_folder("minilm")), "max_tokens": 64}
    return RunConfig.model_validate(values | {"engine": {"kind": "simulated"}})


def executor() -> LocalExecutor:
    return LocalExecutor(SimulatedEmbedder(384, 1e12))
