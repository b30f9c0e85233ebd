"""What a source's listing finds, what it leaves out and says so, and what it refuses."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest
import s3fs
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import BulkembedError, ConfigError, SourceError, StorageError
from bulkembed.report import plain_text
from bulkembed.runs.lookup import open_job
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import SourceListing, source_listing
from bulkembed.source.overlap import refuse_overlap
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.faulty_s3 import serving
from tests.support.runs import in_one_process, read_dataset, simulated

ROW = b'{"id": 1, "text": "a b"}\n'


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, str]:
    if request.param == "local":
        return Store(), str(tmp_path)
    return Store(request.getfixturevalue("s3")), f"s3://corpus/{tmp_path.name}"


@pytest.fixture
def bucket(s3: dict[str, Any], tmp_path: Path) -> tuple[Store, str]:
    return Store(s3), f"s3://corpus/{tmp_path.name}"


def fill(root: object, *names: str, store: Store | None = None, data: bytes = ROW) -> None:
    for name in names:
        (store or Store()).put(f"{root}/{name}", data)


def paths(found: SourceListing) -> list[str]:
    return sorted(item.relative_path for item in found.objects)


def left_out(found: SourceListing) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {each.reason: (each.count, each.examples) for each in found.left_out}


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
    with Store().open_lines(item.uri, item.version) as file:
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
    (tmp_path / "in" / "c.csv").symlink_to(target)
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    with pytest.raises(BulkembedError, match=r"in/b\.jsonl: a symbolic link that leads nowhere"):
        summary.require_complete()
    assert [str(each) for each in summary.plan.left_out] == ["1 broken link: c.csv"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jsonl", "secret/b.jsonl")
    scandir = os.scandir

    def refusing(folder: str) -> Any:
        if folder.endswith("secret"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    for source in (str(tmp_path), f"{tmp_path}/*/*.jsonl", f"{tmp_path}/**"):
        with pytest.raises(StorageError, match=rf"{tmp_path}/secret: cannot be listed") as caught:
            source_listing(Store(), source)
        assert "\n" not in str(caught.value)


def test_what_is_no_file_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    assert left_out(source_listing(Store(), str(tmp_path))) == {"neither file nor folder": (1, ("b.jsonl",))}


def test_names_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "new\nline.csv")
    for name in (b"caf\xe9.jsonl", b"caf\xe9.csv"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(ROW)
    found = source_listing(Store(), str(tmp_path))
    assert paths(found) == ["a.jsonl"]
    assert [(failure.where, failure.reason) for failure in found.failures] == [
        (rf"{tmp_path}/caf\udce9.jsonl", "its name is not UTF-8; rename it")
    ]
    assert left_out(found) == {
        "with the suffix .csv": (1, (r"new\nline.csv",)),
        "with a name that is not UTF-8": (1, (r"caf\udce9.csv",)),
    }


def test_an_output_to_which_a_link_of_the_source_leads_is_refused(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl")
    for target in ("..", "../out", "../out/data"):
        (tmp_path / "out" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "more").symlink_to(target)
        with pytest.raises(ConfigError, match=r"link .*in/more of the source leads"):
            open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
        (tmp_path / "in" / "more").unlink()


def test_other_suffixes_and_hidden_names_are_counted_and_named(place: tuple[Store, str]) -> None:
    store, root = place
    names = ["a.jsonl", "1.csv", "2.csv", "3.csv", "4.CSV", "x/data.csv.gz", "x/000000_0", "_SUCCESS", "_old/b.jsonl", "_old/c.jsonl"]
    fill(root, *names, store=store)
    found = source_listing(store, root)
    assert paths(found) == ["a.jsonl"]
    assert left_out(found) == {
        "with the suffix .csv": (4, ("1.csv", "2.csv", "3.csv")),
        "with the suffix .csv.gz": (1, ("x/data.csv.gz",)),
        "without a suffix": (1, ("x/000000_0",)),
        "hidden by a leading dot or underscore": (2, ("_SUCCESS", "_old/")),
    }


def test_plan_and_summary_show_what_is_left_out(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl", "b.csv", "c.csv", "d.csv", "e.csv", "_SUCCESS")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    for _ in ("a first run", "one with nothing to do"):
        job, plan = open_job(cfg)
        for text in (plain_text.plan_text(job, plan), plain_text.summary_text(job, in_one_process(cfg), 1.0)):
            assert "left out     4 with the suffix .csv: b.csv, c.csv, d.csv, ...\n" in text
            assert "left out     1 hidden by a leading dot or underscore: _SUCCESS\n" in text


def test_many_suffixes_do_not_flood_the_report(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", *(f"{number}.x{number}" for number in range(50)), *(f"log.{number}" for number in range(50)))
    found = source_listing(Store(), str(tmp_path))
    assert len(found.left_out) <= 6
    assert sum(each.count for each in found.left_out) == 100


@pytest.mark.parametrize("source", ["{}/in/_part.jsonl", "{}/in/_*.jsonl", "{}/in/.old", "{}/in/.old/*.jsonl"])
def test_a_hidden_name_that_is_asked_for_is_read(place: tuple[Store, str], source: str) -> None:
    store, root = place
    fill(root, "in/_part.jsonl", "in/.old/a.jsonl", "in/b.jsonl", store=store)
    assert len(source_listing(store, source.format(root)).objects) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("c [v2]/in", ["a.jsonl", "b 1.jsonl", "b [1].jsonl", "what?.jsonl"]),
        ("c [v2]/in/b [1].jsonl", ["b [1].jsonl"]),
        ("c [v2]/in/what?.jsonl", ["what?.jsonl"]),
        ("c [v2]/in/*.jsonl", ["a.jsonl", "b 1.jsonl", "b [1].jsonl", "what?.jsonl"]),
        ("c [v2]/in/b [1]*", ["b 1.jsonl"]),
        ("c [v2]/*/a.jsonl", ["in/a.jsonl"]),
        ("**/a.jsonl", ["c 2/a.jsonl", "c [v2]/in/a.jsonl"]),
        ("c [0-9]/*", ["c 2/a.jsonl"]),
    ],
)
def test_a_path_that_exists_as_it_is_spelled_is_that_path(place: tuple[Store, str], source: str, expected: list[str]) -> None:
    store, root = place
    fill(root, *(f"c [v2]/in/{name}" for name in ("a.jsonl", "b [1].jsonl", "b 1.jsonl", "what?.jsonl")), "c 2/a.jsonl", store=store)
    assert paths(source_listing(store, f"{root}/{source}")) == expected


def test_a_place_with_brackets_overlaps_what_it_holds_alone(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "c [v2]/in/a.jsonl", store=store)
    refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/out")
    refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/c [v2]/out")
    refuse_overlap(store, f"{root}/in", f"{root}/[in]")
    for output in ("c [v2]/in", "c [v2]/in/[out]"):
        with pytest.raises(ConfigError, match="inside one another"):
            refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/{output}")
    with pytest.raises(ConfigError, match="inside one another"):
        refuse_overlap(store, f"{root}/*/a.jsonl", f"{root}/out")


def test_an_output_with_brackets_is_written_and_read(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out [v2]*", qwen, keep_columns=[])).require_complete()
    assert read_dataset(tmp_path / "out [v2]*")["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("s3a://b/x", "s3://b/x/y"),
        ("gs://b/x", "gcs://b/x"),
        ("az://c/x", "abfs://c@account.dfs.core.windows.net/x/y"),
        ("file:///a/b", "/a/b/c"),
        ("local:///a/b", "file:///a/b"),
        ("/", "/a"),
        ("~/x", str(Path.home() / "x" / "out")),
    ],
)
def test_another_spelling_of_a_place_is_that_place(source: str, output: str) -> None:
    with pytest.raises(ConfigError, match="inside one another"):
        refuse_overlap(Store(), source, output)


def test_a_folder_that_a_glob_matches_is_named(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a.jsonl", "dt=1/b.jsonl", store=store)
    found = source_listing(store, f"{root}/*")
    assert paths(found) == ["a.jsonl"]
    assert left_out(found) == {"folder that the pattern matches (add /** for what is in it)": (1, ("dt=1/",))}


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.zst", ".ndjson.gz", ".ndjson.zst", ".jsonl", ".JSONL.GZ", ".Json.Zst"])
def test_json_lines_by_any_of_their_names(tmp_path: Path, suffix: str) -> None:
    data = ROW * 3
    if suffix.lower().endswith(".gz"):
        data = gzip.compress(data)
    elif suffix.lower().endswith(".zst"):
        data = zstd.compress(data)
    fill(tmp_path, f"c4-train.00000-of-01024{suffix}", data=data)
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 3


def test_zstd_with_a_long_window_is_read(tmp_path: Path) -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=options)
    fill(tmp_path, "a.jsonl.zst", data=packer.compress(ROW) + packer.flush())
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"id": 1, "text": "x"}]'),
        ("a.json", '\ufeff \n[\n{"id": 1, "text": "x"},\n{"id": 2, "text": "y"}\n]\n'),
        ("a.json", '{\r\n  "id": 1,\r\n  "text": "x"\r\n}\r\n'),
        ("a.jsonl", '[\n{"id": 1, "text": "x"}\n]\n'),
        ("a.jsonl", '[{"id": 1, "text": "x"},\n{"id": 2, "text": "y"}]\n'),
    ],
)
def test_one_json_document_is_not_taken_for_lines(tmp_path: Path, qwen: str, name: str, text: str) -> None:
    fill(tmp_path / "in", name, data=text.encode())
    fill(tmp_path / "in", "b.jsonl")
    _, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    assert [Path(failure.where).name for failure in plan.failures] == [name]
    assert "not JSON lines" in plan.failures[0].reason
    assert plan.rows_pending == 1


def test_a_bad_first_row_of_json_lines_stays_a_row(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", data=b"[1, 2]\n" + ROW)
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 2


TABLES = {
    "Delta": ("_delta_log/00000000000000000000.json", "part-0.parquet"),
    "Hudi": (".hoodie/hoodie.properties", "a/part-0.parquet"),
    "Lance": ("_versions/1.manifest", "data/0.lance"),
    "Iceberg": ("metadata/v1.metadata.json", "data/dt=1/part-0.parquet"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_folder_of_a_table_format_is_refused_by_name(place: tuple[Store, str], kind: str) -> None:
    store, root = place
    names = TABLES[kind]
    fill(root, *(f"lake/t/{name}" for name in names), "lake/a.jsonl", store=store)
    folder = names[1].rpartition("/")[0]
    sources = ["lake", "lake/t", "lake/t/**", f"lake/t/{folder}/*", f"lake/*/{folder}/*", "lake/**/*.parquet"]
    for source in sources + ([f"lake/t/{folder}"] if folder else []):
        with pytest.raises(SourceError, match=f"lake/t is a table in {kind} format") as caught:
            source_listing(store, f"{root}/{source}".replace("//", "/").replace(":/c", "://c"))
        assert caught.value.exit_code == 2


def test_one_live_file_of_a_table_may_be_named(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "t/_delta_log/0.json", "t/part-0.parquet", store=store)
    assert paths(source_listing(store, f"{root}/t/part-0.parquet")) == ["part-0.parquet"]


def test_a_link_into_a_table_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "t/_delta_log/0.json", "t/dt=1/part-0.parquet", "in/a.jsonl")
    (tmp_path / "in" / "more").symlink_to("../t/dt=1")
    (tmp_path / "alone").symlink_to("t/dt=1")
    for source in ("in", "alone"):
        with pytest.raises(SourceError, match="t is a table in Delta format"):
            source_listing(Store(), f"{tmp_path}/{source}")


def test_names_that_only_resemble_those_of_tables_are_fine(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a/metadata/b.json", "_versions/notes.txt", "metadata/x.metadata.json", "_delta_log", store=store)
    assert paths(source_listing(store, root)) == ["a/metadata/b.json", "metadata/x.metadata.json"]


def test_empty_keys_that_stand_for_folders_are_no_objects(bucket: tuple[Store, str]) -> None:
    store, root = bucket
    fill(root, "in/a.jsonl", "in/t.parquet/deep/b.jsonl", store=store)
    client, bare = store._locate(root)
    for key in ("in/", "in/t.parquet", "in/empty/", "in/empty_$folder$"):
        client.call_s3("put_object", Bucket="corpus", Key=f"{bare.removeprefix('corpus/')}/{key}", Body=b"")
    for source in (f"{root}/in", f"{root}/in/**"):
        found = source_listing(store, source)
        assert paths(found) == ["a.jsonl", "t.parquet/deep/b.jsonl"]
        assert found.left_out == []
    client.call_s3("put_object", Bucket="corpus", Key=f"{bare.removeprefix('corpus/')}/in/b.jsonl/", Body=ROW)
    assert left_out(source_listing(store, f"{root}/in")) == {"with a name that ends in a slash": (1, ("b.jsonl/",))}


def test_keys_that_differ_by_a_slash_are_two_objects(bucket: tuple[Store, str]) -> None:
    store, root = bucket
    fill(root, "in/a.jsonl", "in//a.jsonl", store=store)
    found = source_listing(store, f"{root}/in")
    assert len({item.id for item in found.objects}) == 2
    for item in found.objects:
        with store.open_lines(item.uri, item.version) as file:
            assert file.read() == ROW


@pytest.fixture
def refused_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a folder that the S3 server does not list."""
    listing = s3fs.S3FileSystem._lsdir

    async def refusing(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if "secret" in f"{path}/{options.get('prefix', '')}":
            raise PermissionError(13, "Access Denied")
        return await listing(self, path, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_lsdir", refusing)
    yield "secret"


@pytest.mark.parametrize("source", ["secret", "*/*.jsonl", "*/b.jsonl", "secret/*"])
def test_a_prefix_that_s3_does_not_list_is_an_error(bucket: tuple[Store, str], refused_folder: str, source: str) -> None:
    store, root = bucket
    fill(root, "in/a.jsonl", f"{refused_folder}/b.jsonl", store=store)
    with pytest.raises(StorageError, match=f"listing s3://.*{refused_folder}: PermissionError") as caught:
        source_listing(store, f"{root}/{source}")
    assert "\n" not in str(caught.value)


def test_rights_may_end_at_the_source(bucket: tuple[Store, str], monkeypatch: pytest.MonkeyPatch) -> None:
    store, root = bucket
    fill(root, "in/a.jsonl", store=store)
    listing = s3fs.S3FileSystem._lsdir

    async def refusing(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if not f"{path}/".startswith(f"{root.removeprefix('s3://')}/in/"):
            raise PermissionError(13, "Access Denied")
        return await listing(self, path, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_lsdir", refusing)
    assert paths(source_listing(store, f"{root}/in")) == ["a.jsonl"]


def test_a_key_that_is_also_a_folder_is_read(bucket: tuple[Store, str]) -> None:
    store, root = bucket
    fill(root, "in/x.jsonl", "in/x.jsonl/a.jsonl", "in/x", "in/x/b.jsonl", store=store)
    assert paths(source_listing(store, f"{root}/in")) == ["x.jsonl", "x.jsonl/a.jsonl", "x/b.jsonl"]
    assert paths(source_listing(store, f"{root}/in/x.jsonl")) == ["a.jsonl", "x.jsonl"]
    assert left_out(source_listing(store, f"{root}/in/x")) == {"without a suffix": (1, ("x",))}


def test_a_pattern_for_buckets_is_refused(bucket: tuple[Store, str]) -> None:
    with pytest.raises(SourceError, match="bucket cannot be a pattern"):
        source_listing(bucket[0], "s3://corp*/in")


@pytest.mark.parametrize("source", ["s3://", "s3:///", "s3a://"])
def test_a_source_without_a_bucket_is_refused(bucket: tuple[Store, str], source: str) -> None:
    with pytest.raises(SourceError, match="without the name of a bucket"):
        source_listing(bucket[0], source)


@pytest.mark.parametrize("pattern", ["a**b", "**c/x"])
def test_a_pattern_that_is_none_is_told_in_one_line(tmp_path: Path, pattern: str) -> None:
    fill(tmp_path, "a.jsonl")
    with pytest.raises(SourceError, match="Invalid pattern"):
        source_listing(Store(), f"{tmp_path}/{pattern}")


@pytest.fixture
def web() -> Iterator[str]:
    """The URL of a server with a page of links, and objects that it gives for any query."""

    async def page(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text='<a href="a.jsonl">a</a> <a href="b.csv">b</a> <a href="../">up</a>', content_type="text/html")

    async def document(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(body=gzip.compress(ROW) if request.path.endswith(".gz") else ROW, content_type="text/plain")

    application = aiohttp.web.Application()
    application.router.add_get("/in/", page)
    for name in ("a.jsonl", "b.csv", "c.json.gz"):
        application.router.add_get(f"/in/{name}", document)
    with serving(application) as url:
        yield url


@pytest.mark.parametrize(
    ("source", "expected"),
    [("in/", ["a.jsonl"]), ("in/a.jsonl", ["a.jsonl"]), ("in/c.json.gz?download=1", ["c.json.gz?download=1"])],
)
def test_a_page_of_links_is_a_folder_and_a_query_no_pattern(web: str, source: str, expected: list[str]) -> None:
    found = source_listing(Store(), f"{web}/{source}")
    assert paths(found) == expected
    assert layout_of(Store(), found.objects[0]).rows == 1
    assert left_out(found) == ({"with the suffix .csv": (1, ("b.csv",))} if source == "in/" else {})


@pytest.mark.parametrize("source", ["", "/*/b [1].jsonl", "/c [v2]", "/**/*.jsonl", "/c [v2]/b [1].jsonl"])
def test_file_systems_without_a_listing_of_their_own_are_walked(tmp_path: Path, source: str) -> None:
    store, root = Store(), f"memory://{tmp_path}"
    fill(root, "c [v2]/b [1].jsonl", "c [v2]/_SUCCESS", store=store)
    found = source_listing(store, root + source)
    assert [item.uri for item in found.objects] == [f"memory://{tmp_path}/c [v2]/b [1].jsonl"]
