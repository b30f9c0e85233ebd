"""Versions of objects: what changes them, and what does not show any."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import pytest

from bulkembed.errors import ObjectError, SourceError
from bulkembed.runs.lookup import open_job
from bulkembed.storage import local_identity
from bulkembed.storage.object_info import modified_of, version_of
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, simulated
from tests.support.web import Dateless, Quiet, web_server


def write(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a.jsonl").write_text(f'{{"id": 1, "text": "{text}", "lang": "x"}}\n')
    os.utime(folder / "a.jsonl", (1_700_000_000, 1_700_000_000))


def test_a_folder_in_place_of_another_with_the_same_names_sizes_and_times(tmp_path: Path, qwen: str) -> None:
    write(tmp_path / "in", "old words")
    write(tmp_path / "other", "new words")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg).require_complete()
    (tmp_path / "in").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "in")
    night = in_one_process(cfg).night
    assert (night.changed, night.embedded) == (1, 1)


def test_a_file_written_in_place_with_its_time_put_back(tmp_path: Path) -> None:
    write(tmp_path / "in", "old words")
    file = tmp_path / "in/a.jsonl"
    before = Store().objects(str(tmp_path / "in"))[0].version
    file.write_text(file.read_text().replace("old", "new"))
    os.utime(file, (1_700_000_000, 1_700_000_000))
    assert Store().objects(str(tmp_path / "in"))[0].version == Store().version(str(file)) != before


def test_a_restored_tree_is_read_again_and_not_embedded_again(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    documents = in_one_process(cfg).progress.counts.documents
    shutil.copytree(tmp_path / "in", tmp_path / "copy", copy_function=shutil.copy2)
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "copy").rename(tmp_path / "in")
    again = in_one_process(cfg)
    assert documents > 0
    assert (again.progress.counts.documents, again.night.added, again.night.deleted) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "lasting"), [("ext4", True), ("nfs4", True), ("fuse.gcsfuse", False), ("fuse", False), ("cifs", False), ("9p", False)]
)
def test_inodes_count_where_every_host_sees_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lasting: bool) -> None:
    device = tmp_path.stat().st_dev
    (tmp_path / "mounts").write_text(
        f"29 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {kind} /dev/x rw\n30 1 0:77 / /other rw - fuse.x y rw\n"
    )
    monkeypatch.setattr(local_identity, "MOUNTS", tmp_path / "mounts")
    local_identity.has_lasting_inodes.cache_clear()
    known = tmp_path.stat()
    assert str(local_identity.local_info(known)["version"]).endswith(f"-{known.st_ino}") == lasting
    local_identity.has_lasting_inodes.cache_clear()


@pytest.mark.parametrize(
    ("info", "version", "modified"),
    [
        ({"size": 3, "ETag": '"abc"', "Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT"}, "abc", 1795687200),
        ({"size": 3, "Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT"}, "3-Thu, 26 Nov 2026 10:00:00 GMT", 1795687200),
        ({"size": 3, "blob_id": "0a1b", "lfs": None, "last_commit": None}, "0a1b", None),
        ({"size": 3, "mtime": "2026-11-26T10:00:00Z"}, "3-2026-11-26T10:00:00Z", 1795687200),
        ({"size": 3, "ETag": '"abc"', "Last-Modified": "yesterday"}, "abc", None),
        ({"size": 3, "ETag": '"abc"', "Last-Modified": "0"}, "abc", None),
        ({"size": 3, "ETag": "", "mimetype": "text/plain"}, "", None),
    ],
)
def test_what_a_store_says_of_an_object(info: dict[str, object], version: str, modified: float | None) -> None:
    assert (version_of(info), modified_of(info)) == (version, modified)


class NewTags(Quiet):
    """Gives an ETag of its own to every answer, as a server does that makes pages anew."""

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{uuid.uuid4().hex}"')
        super().end_headers()


def test_a_server_that_gives_a_new_etag_at_each_request_is_named(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    with web_server(tmp_path / "in", NewTags) as url:
        with pytest.raises(SourceError, match="its server gives another version at each request"):
            open_job(simulated(f"{url}/part-0.parquet", tmp_path / "out", qwen))
        store = Store()
        listed = store.objects(f"{url}/part-0.parquet")[0]
        with pytest.raises(ObjectError, match=r"gives another version at each request.*copy it elsewhere"):
            store.open(listed.uri, listed.version)
    with web_server(tmp_path / "in") as url, pytest.raises(ObjectError, match="changed since this run was planned; run again"):
        store.open(f"{url}/part-0.parquet", "another")


def test_an_object_whose_changes_cannot_be_seen_is_refused_and_blocks_no_other(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    with web_server(tmp_path / "in", Dateless) as url:
        with pytest.raises(SourceError, match=r"nothing there that can be read.*neither an ETag nor a time of change"):
            open_job(simulated(f"{url}/part-1.jsonl", tmp_path / "out", qwen))
        _, plan = open_job(simulated(f"{url}/", tmp_path / "out", qwen))
    assert plan.pending
    assert [failure.where for failure in plan.failures] == [f"{url}/part-1.jsonl"]
