"""Feeds of real files: applied to a copy of the older snapshot they give the newer one."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import bulkembed
from bulkembed.dataset import feed as feed_files
from bulkembed.dataset import row_buckets, snapshot_changes
from bulkembed.dataset.changes import ROW_KEY
from bulkembed.dataset.feed import Feed, write_feed
from bulkembed.dataset.gc import GcRules, gc
from bulkembed.dataset.manifests import Rejected
from bulkembed.dataset.row_buckets import RowBuckets
from bulkembed.dataset.tombstones import bury
from bulkembed.errors import ConfigError, SourceError, StorageError
from bulkembed.storage.store import Store
from tests.support.commands import in_process
from tests.support.datasets import STORE, Nights, Row, digest, vector_of
from tests.support.feeds import apply, copy_of, multiset, read

names, texts, languages = st.sampled_from("abcdef"), st.sampled_from(["one", "two", "three"]), st.sampled_from(["en", "de"])
chunks = st.builds(lambda index, start: (index, start, start + 3, "document"), st.integers(0, 2), st.integers(0, 1))


def three_nights(chunk: st.SearchStrategy[tuple[int, int, int, str] | None]) -> st.SearchStrategy[list[dict[int, list[Row]]]]:
    rows = st.lists(st.builds(Row, names, texts, languages, chunk), min_size=1, max_size=5)
    return st.lists(st.dictionaries(st.integers(0, 3), rows, min_size=1), min_size=3, max_size=3)


def feed(output: Path, first: int, last: int | None = None, **options: Any) -> tuple[Feed, Path]:
    folder = output.parent / f"feed-{first}-{last}"
    values: dict[str, Any] = {"vectors": "stored", "key": "none"} | options
    return write_feed(STORE, str(output), str(folder), first, last, **values), folder


def named(files: dict[int, list[Row]]) -> dict[str, list[Row]]:
    """Files under names that follow from their rows: a file that does not change is listed again."""
    return {f"{number}-{digest(repr(rows)).hex()}": rows for number, rows in files.items()}


@settings(max_examples=4, phases=[Phase.generate])  # shrinking writes files for minutes
@given(three_nights(st.none()) | three_nights(chunks))
def test_a_feed_makes_one_snapshot_of_another(nights: list[dict[int, list[Row]]]) -> None:
    with TemporaryDirectory() as folder:
        line = Nights(Path(folder, "out"))
        for night in nights:
            line.publish(named(night))
        target = copy_of(line.output, 1)
        (first, one), (second, two), (_, both) = (feed(line.output, *pair) for pair in ((1, 2), (2, 3), (1, 3)))
        assert multiset(apply(target, one)) == multiset(copy_of(line.output, 2))
        assert multiset(apply(apply(target, one), two)) == multiset(apply(target, both)) == multiset(copy_of(line.output, 3))
        assert multiset(apply(apply(target, both), both)) == multiset(copy_of(line.output, 3))
        assert multiset(apply(copy_of(line.output, 3), feed(line.output, 3, 1)[1])) == multiset(target)
        assert multiset(apply([], feed(line.output, 0, 3)[1])) == multiset(copy_of(line.output, 3))
        assert (first.upserts, second.deletes) == (len(read(one, "upserts")), len(read(two, "deletes")))


def test_buckets_and_parts_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Nights(tmp_path / "out")
    before = [Row(f"{number}", f"text {number}") for number in range(200)]
    after = [Row(row.id, row.text.replace("7", "8"), row.lang) for row in before[20:]]
    line.publish({"a": before[:50], "b": before[50:150], "c": before[150:]})
    line.publish({"a": before[:50], "d": after[140:], "e": after[30:100]})
    whole = feed(line.output, 1, 2)[1].rename(tmp_path / "whole")
    monkeypatch.setattr(snapshot_changes, "MAX_BUCKET_ROWS", 10)
    monkeypatch.setattr(row_buckets, "MAX_PENDING_ROWS", 30)
    monkeypatch.setattr(feed_files, "PART_BYTES", 300)
    told, cut = feed(line.output, 1, 2)
    assert len(told.files) > 3
    for kind in ("upserts", "deletes"):
        assert read(cut, kind) == read(whole, kind)


def test_upserts_say_what_changed(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish(
        {"a": [Row("same", "t"), Row("text", "old"), Row("kept", "t", "en"), Row("gone", "t"), Row("twice", "x"), Row("twice", "y")]}
    )
    line.publish(
        {"b": [Row("twice", "z"), Row("same", "t"), Row("text", "new"), Row("kept", "t", "de"), Row("came", "t"), Row("twice", "x")]}
    )
    told, folder = feed(line.output, 1)
    marks = sorted((row["id"], row["lang"], row["vector_changed"], row["rows_of_id"]) for row in read(folder, "upserts"))
    assert marks == [
        ("came", "xx", True, 1),
        ("kept", "de", False, 1),
        ("text", "xx", True, 1),
        ("twice", "xx", True, 2),
        ("twice", "xx", True, 2),
    ]
    assert read(folder, "deletes") == [{"id": "gone", "chunk_index": None, "reason": "deleted"}]
    assert (told.from_snapshot, told.to_snapshot, told.upserts, told.vectors_changed, told.keys_added) == (1, 2, 5, 4, 1)
    assert (told.deletes, told.reasons) == (1, {"deleted": 1})


def test_a_group_is_sent_whole_from_files_that_did_not_change(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("twice", "x"), Row("other", "o")], "b": [Row("twice", "y")]})
    line.publish({"a": [Row("twice", "x"), Row("other", "o")]})
    told, folder = feed(line.output, 1)
    assert [(row["id"], row["vector_changed"], row["rows_of_id"]) for row in read(folder, "upserts")] == [("twice", True, 1)]
    assert told.deletes == 0


def test_chunks_have_keys_of_their_own(tmp_path: Path) -> None:
    def chunked(name: str, text: str, *windows: str) -> list[Row]:
        starts = [text.index(window) for window in windows]
        return [
            Row(name, window, chunk=(index, start, start + len(window), text))
            for index, (window, start) in enumerate(zip(windows, starts, strict=True))
        ]

    line = Nights(tmp_path / "out")
    line.publish({"a": chunked("d", "one two three four", "one", "two", "three", "four") + chunked("e", "same", "same")})
    line.publish({"b": chunked("d", "one  two2 three", "one", "two2", "three") + chunked("e", "same", "same")})
    folder = feed(line.output, 1)[1]
    # The hash of the whole document changed with its second window, and stands beside each.
    assert [(row["chunk_index"], row["vector_changed"]) for row in read(folder, "upserts")] == [(0, False), (1, True), (2, False)]
    assert read(folder, "deletes") == [{"id": "d", "chunk_index": 3, "reason": "deleted"}]
    assert multiset(apply(copy_of(line.output, 1), folder)) == multiset(copy_of(line.output, 2))


def test_only_small_columns_of_changed_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "t")], "b": [Row("b", "t")]})
    line.publish({"a": [Row("a", "t")], "c": [Row("b", "t")]})
    for name in ("a", "b", "c"):  # with their footers alone, the columns of a vector cannot be read
        assert (line.output / "data" / line.fingerprint / f"{name}.parquet").exists()
    (line.output / "data" / line.fingerprint / "a.parquet").unlink()
    told, folder = feed(line.output, 1)
    assert (told.upserts, told.deletes, told.files) == (0, 0, ())
    assert [path.name for path in folder.iterdir()] == ["_feed.json"]


def test_other_int8_ranges_change_every_vector(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out", forms="8:int8")
    line.publish({"a": [Row("a", "t"), Row("b", "t")]})
    line.fingerprint = "other"
    line.publish({"a": [Row("a", "t")]})
    told, folder = feed(line.output, 1)
    assert [(row["id"], row["vector_changed"]) for row in read(folder, "upserts")] == [("a", True)]
    assert told.deletes == 1


def test_deletes_say_why_a_row_became_a_reject(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("empty", "t"), Row("gone", "u"), Row("long", "v")]}, sources=["v1"])
    line.reject("v2", {"empty": "empty_text", "new": "null_text"})
    line.scan("v2", {"long": "much too long"})
    line.publish({}, sources=["v2"], rejected=[Rejected(digest("much too long"), "too_long", "", 1)])
    told, folder = feed(line.output, 1)
    assert {row["id"]: row["reason"] for row in read(folder, "deletes")} == {
        "empty": "rejected:empty_text",
        "gone": "deleted",
        "long": "rejected:too_long",
    }
    assert told.reasons == {"deleted": 1, "rejected:empty_text": 1, "rejected:too_long": 1}


def test_a_feed_is_written_once(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    for text in ("old", "new", "newer"):
        line.publish({f"{text}": [Row("a", text), Row(text, "t")]})
    told, folder = feed(line.output, 1, 2)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert feed(line.output, 1, 2) == (told, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == times
    (folder / "upserts" / "part-00007.parquet").write_bytes(b"of an attempt that was killed")
    (folder / "_feed.json").unlink()
    assert feed(line.output, 1, 2)[0] == told
    assert {path: path.read_bytes() for path in folder.rglob("*.*")}.keys() == times.keys()
    for file in told.files:
        data = (folder / file.name).read_bytes()
        assert (len(data), sha256(data).hexdigest(), pq.ParquetFile(folder / file.name).metadata.num_rows) == (
            file.bytes,
            file.sha256,
            file.rows,
        )
    record = json.loads((folder / "_feed.json").read_bytes())
    assert (record["from"], record["to"], record["line"], record["upserts"]) == (1, 2, "line", told.upserts)
    with pytest.raises(ConfigError, match="holds the changes from snapshot 1 to 2"):
        write_feed(STORE, str(line.output), str(folder), 1, 3, "stored", "none")
    with pytest.raises(ConfigError, match="holds the changes from snapshot 1 to 2"):
        write_feed(STORE, str(line.output), str(folder), 1, 2, "float32", "none")


def test_feeds_are_refused_where_they_would_be_wrong(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "t")]})
    line.publish({"b": [Row("a", "u")]})
    other = Nights(line.output, line="other", fingerprint="g")
    other.publish({"a": [Row("a", "t")]})
    with pytest.raises(SourceError, match=r"different lines .line and other.*load snapshot 3 anew"):
        feed(line.output, 1, 3)
    with pytest.raises(SourceError, match="no snapshot 9"):
        feed(line.output, 9, 2)
    bury(STORE, str(line.output), 1, line.line, "gc")
    feed(line.output, 1, 2)  # its files are there for the grace of gc
    gc(STORE, str(line.output), GcRules(keep=1, grace=0.0, older_than=0.0, max_share=1.0))
    with pytest.raises(SourceError, match="snapshot 1 "):
        feed(line.output, 1, 2)
    with pytest.raises(ConfigError, match="holds the dataset"):
        write_feed(STORE, str(line.output), str(line.output / "data" / "feed"), 0, 2, "stored", "none")
    kept = Nights(tmp_path / "kept", kept="key")
    kept.publish({"a": [Row("a", "t")]})
    with pytest.raises(SourceError, match="keeps a column 'key'"):
        feed(kept.output, 0, 1, key="uuid")
    strange = tmp_path / "feed-0-2" / "upserts"
    strange.mkdir(parents=True)
    (strange / "mine.parquet").touch()
    with pytest.raises(ConfigError, match=r"upserts/mine\.parquet"):
        feed(line.output, 0, 2)
    (line.output / "data" / line.fingerprint / "b.parquet").unlink()
    with pytest.raises(StorageError, match=r"b\.parquet: missing"):
        write_feed(STORE, str(line.output), str(tmp_path / "feed"), 0, 2, "stored", "none")


@pytest.mark.parametrize("forms", ["8:float16,4:float32", "8:int8", "8:binary"])
def test_vectors_as_float32_lists_stand_for_the_same(tmp_path: Path, forms: str) -> None:
    line = Nights(tmp_path / "out", forms=forms)
    line.publish({"a": [Row("a", "one"), Row("b", "two")]})
    folder = feed(line.output, 0, 1, vectors="float32")[1]
    table = pq.ParquetFile(folder / "upserts" / "part-00000.parquet").read()
    for name in ("embedding", "embedding_4"):
        if name in table.column_names:
            assert table.schema.field(name).type == pa.list_(pa.float32())
            for text, values in zip(["one", "two"], table[name].to_pylist(), strict=True):
                vector = vector_of(text)[: len(values)]
                assert np.dot(values, vector) > 0.7 * np.linalg.norm(vector)


def test_keys_are_uuids_of_ids_and_chunks(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "one"), Row("b", "two")]})
    line.publish({"b": [Row("a", "two")]})
    folder = feed(line.output, 1, key="uuid")[1]
    assert [row["key"] for row in read(folder, "upserts")] == [uuid.uuid5(uuid.NAMESPACE_OID, "a").bytes]
    assert [row["key"] for row in read(folder, "deletes")] == [uuid.uuid5(uuid.NAMESPACE_OID, "b").bytes]
    chunked = Nights(tmp_path / "chunks")
    chunked.publish({"a": [Row("a", "one", chunk=(3, 0, 3, "one"))]})
    assert read(feed(chunked.output, 0, 1, key="uuid")[1], "upserts")[0]["key"] == uuid.uuid5(uuid.NAMESPACE_OID, "a/3").bytes


def test_the_command_prints_what_it_wrote_and_refuses_in_one_line(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "one"), Row("b", "two")]})
    line.publish({"b": [Row("a", "two", "de")]})
    Nights(line.output, line="other", fingerprint="g").publish({"a": [Row("a", "t")]})
    command = ("changes", "--output", line.output, "--from", 1)
    done = in_process(*command, "--feed", tmp_path / "feed", "--vectors", "float32", "--key", "uuid")
    assert done.returncode == 0
    assert "1 (0 of new keys; 0 with the vector they had)" in done.stdout
    assert "deleted 1" in done.stdout
    assert (tmp_path / "feed" / "_feed.json").exists()
    refused = in_process(*command, "--to", 3, "--feed", tmp_path / "other")
    assert (refused.returncode, refused.stderr.count("\n"), refused.stdout) == (2, 1, "")
    assert "load snapshot 3 anew" in refused.stderr


def test_python_writes_a_feed_and_returns_what_it_holds(tmp_path: Path) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "one")]})
    told = bulkembed.changes(line.output, tmp_path / "feed", 0)
    assert (told.upserts, told.rows, told.to_snapshot) == (1, 1, 1)
    with pytest.raises(ConfigError, match="key: must be none or uuid"):
        bulkembed.changes(line.output, tmp_path / "feed", 0, key="sha1")  # type: ignore[arg-type]


def test_a_feed_on_s3_has_the_same_bytes(tmp_path: Path, bucket: tuple[Store, str]) -> None:
    store, place = bucket
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "one"), Row("b", "two")], "c": [Row("c", "three")]})
    line.publish({"b": [Row("a", "two", "de")], "c": [Row("c", "three")]})
    for path in (path for path in line.output.rglob("*") if path.is_file()):
        store.put(f"{place}/out/{path.relative_to(line.output)}", path.read_bytes())
    told = write_feed(store, f"{place}/out", f"{place}/feed", 1, 2, "stored", "none")
    here, folder = feed(line.output, 1, 2)
    assert told == replace(here, output=f"{place}/out")
    for file in told.files:
        assert store.read(f"{place}/feed/{file.name}") == (folder / file.name).read_bytes()


def test_a_full_disk_for_temporary_files_is_told_in_one_line(tmp_path: Path) -> None:
    buckets = RowBuckets(tmp_path / "keys", 1)
    (tmp_path / "keys" / "00000").symlink_to("/dev/full")
    buckets.add(np.zeros(3, ROW_KEY))
    with pytest.raises(StorageError, match="No space left on device; TMPDIR names another folder"):
        buckets.flush()
