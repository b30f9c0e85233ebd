"""Symbolic links in a local source, and names that are no text."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.runs.lookup import open_job
from bulkembed.source.objects import NoDocuments, source_listing
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.listing import ROW, fill, left_out, paths
from tests.support.runs import in_one_process, read_dataset, simulated


def test_symbolic_links_to_files_and_folders_are_followed(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "one", "lang": "x"}])
    write_jsonl(tmp_path / "blob", [{"id": 2, "text": "two", "lang": "x"}])
    write_jsonl(tmp_path / "elsewhere" / "c.jsonl", [{"id": 3, "text": "three", "lang": "x"}])
    (tmp_path / "in" / "b.jsonl").symlink_to("../blob")
    (tmp_path / "in" / "more").symlink_to("../elsewhere")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == [1, 2, 3]


def test_a_linked_file_has_the_version_of_what_it_leads_to(tmp_path: Path) -> None:
    fill(tmp_path, "blob")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").symlink_to("../blob")
    os.utime(tmp_path / "in" / "a.jsonl", (1, 1), follow_symlinks=False)
    (item,) = source_listing(Store(), str(tmp_path / "in")).objects
    assert item.uri == f"{tmp_path}/in/a.jsonl"
    assert item.version == Store().version(item.uri)
    with Store().open_stream(item.uri, item.version) as file:
        assert file.read() == ROW
    fill(tmp_path, "blob", data=ROW * 2)
    assert item.version != Store().version(item.uri)


def test_every_real_path_is_listed_once_under_the_name_that_is_no_link(tmp_path: Path) -> None:
    fill(tmp_path, "in/deep/b.jsonl", "other/c.jsonl")
    for link, target in {"0.jsonl": "deep/b.jsonl", "loop": ".", "deep/up": "..", "x": "../other", "y": "../other"}.items():
        (tmp_path / "in" / link).symlink_to(target)
    found = source_listing(Store(), str(tmp_path / "in"))
    assert paths(found) == ["deep/b.jsonl", "x/c.jsonl"]
    assert left_out(found) == {"linked to what is listed under another name": (4, ("0.jsonl", "deep/up/", "loop/"))}


def test_a_glob_finds_a_link_whose_target_it_does_not_match(tmp_path: Path) -> None:
    fill(tmp_path, "blob.bin")
    for link in ("a.jsonl", "b.jsonl"):
        (tmp_path / link).symlink_to("blob.bin")
    assert paths(source_listing(Store(), f"{tmp_path}/*.jsonl")) == ["a.jsonl"]
    assert left_out(source_listing(Store(), f"{tmp_path}/*.jsonl")) == {"linked to what is listed under another name": (1, ("b.jsonl",))}


@pytest.mark.parametrize("pattern", ["", "/**"])
def test_a_file_is_listed_under_the_name_that_tells_its_format(tmp_path: Path, pattern: str) -> None:
    """As in a hub's cache: blobs without a suffix, and links to them."""
    fill(tmp_path, "in/blobs/0123", "in/c.jsonl", "other")
    (tmp_path / "in/snapshots").mkdir()
    for link, target in {"snapshots/a.jsonl": "../blobs/0123", "x.txt": "../other", "y.jsonl": "../other", "z.json": "../other"}.items():
        (tmp_path / "in" / link).symlink_to(target)
    found = source_listing(Store(), f"{tmp_path}/in{pattern}")
    assert paths(found) == ["c.jsonl", "snapshots/a.jsonl", "y.jsonl"]
    assert left_out(found) == {"linked to what is listed under another name": (3, ("blobs/0123", "x.txt", "z.json"))}
    assert {Path(link).name for link, _ in found.links} >= {"a.jsonl", "y.jsonl"}
    assert paths(source_listing(Store(), f"{tmp_path}/in/**/*.json")) == ["z.json"]


@given(data=st.data(), count=st.integers(0, 8))
def test_no_arrangement_of_links_loses_or_doubles_a_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int) -> None:
    root = tmp_path_factory.mktemp("links")
    folders = ["", "a", "a/b", "c"]
    fill(root, *(f"{folder}/{number}.jsonl" for number, folder in enumerate(folders)))
    for number in range(count):
        link = root / data.draw(st.sampled_from(folders)) / f"{data.draw(st.sampled_from('0xz'))}{number}"
        link.symlink_to(root / data.draw(st.sampled_from([*folders, "0.jsonl", "a/1.jsonl"])))
    found = source_listing(Store(), str(root))
    assert paths(found) == ["0.jsonl", "a/1.jsonl", "a/b/2.jsonl", "c/3.jsonl"]
    assert sum(each.count for each in found.left_out) == count


@pytest.mark.parametrize("target", ["nowhere", "b.jsonl"])
def test_a_link_that_leads_nowhere_is_named_and_fails_the_run(tmp_path: Path, qwen: str, target: str) -> None:
    fill(tmp_path / "in", "a.jsonl")
    (tmp_path / "in" / "b.jsonl").symlink_to(target)
    (tmp_path / "in" / "c.pdf").symlink_to(target)
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    with pytest.raises(BulkembedError, match=r"in/b\.jsonl: a link that leads nowhere"):
        summary.require_complete()
    assert [str(each) for each in summary.plan.left_out] == ["1 broken link: c.pdf"]


def test_a_volume_of_kubernetes_is_read_once_by_its_own_names(tmp_path: Path) -> None:
    """Names lead to files by way of `..data`, which is a link to a folder that an update replaces."""
    fill(tmp_path, "..2026_11_27/a.jsonl", "..2026_11_27/b.jsonl")
    (tmp_path / "..data").symlink_to("..2026_11_27")
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert paths(source_listing(Store(), str(tmp_path))) == ["a.jsonl", "b.jsonl"]


def test_a_source_that_is_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    fill(tmp_path, "deep/a.jsonl")
    (tmp_path / "one.jsonl").symlink_to("deep/a.jsonl")
    (tmp_path / "all").symlink_to("deep")
    (tmp_path / "loop").symlink_to("loop")
    assert paths(source_listing(Store(), f"{tmp_path}/one.jsonl")) == ["one.jsonl"]
    assert paths(source_listing(Store(), f"{tmp_path}/all/")) == ["a.jsonl"]
    with pytest.raises(NoDocuments, match="loop: a link that leads nowhere"):
        source_listing(Store(), f"{tmp_path}/loop")


def test_what_is_no_file_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    with TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:  # the path of a socket has 107 bytes
        server.bind(f"{short}/c.jsonl")
        (tmp_path / "c.jsonl").symlink_to(f"{short}/c.jsonl")
        assert left_out(source_listing(Store(), str(tmp_path))) == {"neither file nor folder": (2, ("b.jsonl", "c.jsonl"))}


def test_names_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "new\nline.pdf")
    for name in (b"caf\xe9.jsonl", b"caf\xe9.pdf"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(ROW)
    found = source_listing(Store(), str(tmp_path))
    assert paths(found) == ["a.jsonl"]
    assert [(failure.where, failure.reason) for failure in found.failures] == [
        (rf"{tmp_path}/caf\udce9.jsonl", "its name is not UTF-8; rename or exclude it")
    ]
    assert left_out(found) == {
        "with the suffix .pdf": (1, (r"new\nline.pdf",)),
        "with a name that is not UTF-8": (1, (r"caf\udce9.pdf",)),
    }


def test_an_output_to_which_a_link_of_the_source_leads_is_refused(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl")
    for target in ("..", "../out", "../out/data"):
        (tmp_path / "out" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "more").symlink_to(target)
        with pytest.raises(ConfigError, match=r"link .*in/more of the source leads"):
            open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
        (tmp_path / "in" / "more").unlink()
