"""Every kind of file that an output has, in place of which something else stands: each command says so in one line, or does without it.

`test_damages` has what a run makes of such an output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed import api
from bulkembed.errors import BulkembedError
from bulkembed.runs.lookup import open_job
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.runs import in_one_process, problems, simulated

KINDS = (
    *("forget", "heads", "int8_ranges", "keys", "manifests/files", "manifests/rejected", "manifests/sources"),
    *("pins", "receipts", "rejects", "run_keys", "runs", "snapshots", "tags", "tombstones"),
)
# What must not be believed, by command: the files without which its answer could be wrong.
NEEDED = {
    "plan": {"forget", "int8_ranges", "runs", "snapshots"},
    "status": {"heads", "snapshots"},
    "files": {"heads", "snapshots", "manifests/files"},
    "verify": {"heads", "snapshots", "manifests/files", "receipts"},
    "gc": {"heads", "snapshots", "pins", "tags", "manifests/files", "manifests/sources"},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, qwen: str) -> tuple[Path, Any]:
    """An output that has a file of every kind, and the configuration of its next run."""
    folder = tmp_path_factory.mktemp("foreign")
    output = str(folder / "out")
    write_corpus(folder / "in", files=1)
    write_jsonl(folder / "in/b.jsonl", [{"id": 1001, "text": "", "lang": "x"}, {"id": 1002, "text": "some words", "lang": "x"}])

    def config(night: str) -> Any:
        return simulated(folder / "in", output, qwen, vectors="64:float32,32:int8", run_key=night)

    in_one_process(config("first"))
    write_jsonl(folder / "in/c.jsonl", [{"id": 1003, "text": "other words", "lang": "x"}])
    in_one_process(config("second"))
    (folder / "ids").write_text("1002\n")
    api.forget(output, folder / "ids")
    api.tag(output, "kept", 3)
    api.open_dataset(output, pin="1h")
    return folder / "out", config("third")


def commands(output: Path, cfg: Any) -> dict[str, Callable[[], Any]]:
    """Commands that change nothing."""
    return {
        "plan": lambda: open_job(cfg),
        "status": lambda: api.status(output),
        "files": lambda: api.files(output),
        "verify": lambda: refuse(problems(output)),
        "gc": lambda: api.plan_gc(output, keep=1),
    }


def refuse(found: list[str]) -> None:
    if found:
        raise BulkembedError(found[0])


def foreign(path: Path) -> Iterator[bytes]:
    """What may stand there instead: half of it, and a file of another program.

    Of JSON it is also one of a later version, and one with other types."""
    data = path.read_bytes()
    yield data[: len(data) // 2]
    if path.suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": [1]}), sink)
        yield sink.getvalue().to_pybytes()
        return
    record = json.loads(data)
    yield from (b"null", b'{"name": "somebody"}', json.dumps(record | {"of_a_later_version": 1}).encode())
    yield json.dumps({name: "x" if not isinstance(value, str) else 7 for name, value in record.items()}).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_a_file_is_told_in_one_line(scene: tuple[Path, Any], kind: str) -> None:
    output, cfg = scene
    path = newest_of(output, kind)
    good = path.read_bytes()
    try:
        for number, data in enumerate(foreign(path)):
            path.write_bytes(data)
            for name, command in commands(output, cfg).items():
                said = answer(command)
                assert len(said.splitlines()) <= 1
                # A record of a later version has all that this version reads.
                if kind in NEEDED[name] and (path.suffix != ".json" or number != 3):
                    assert str(path) in said, (name, number, said)
    finally:
        path.write_bytes(good)
    assert all(answer(command) == "" for command in commands(output, cfg).values())


def newest_of(output: Path, kind: str) -> Path:
    """The newest file of a kind. Of the run records it is that of the line."""
    folder, _, start = kind.partition("/")
    lines = {path.name for path in (output / "_meta/keys").iterdir()}
    found = [path for path in (output / "_meta" / folder).rglob(f"{start}*.*") if kind != "runs" or path.stem in lines]
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def answer(command: Callable[[], Any]) -> str:
    try:
        command()
    except BulkembedError as error:
        return str(error)
    return ""
