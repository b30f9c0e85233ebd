"""Sources on S3 and on file systems that have no listing of their own."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest
import s3fs

from bulkembed.errors import SourceError, StorageError
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_listing
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from tests.support.faulty_s3 import serving
from tests.support.listing import ROW, fill, left_out, paths


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
        with store.open_stream(item.uri, item.version) as file:
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


@pytest.fixture
def web() -> Iterator[str]:
    """The URL of a server with a page of links, and objects that it gives for any query."""

    async def page(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text='<a href="a.jsonl">a</a> <a href="b.pdf">b</a> <a href="../">up</a>', content_type="text/html")

    async def document(request: aiohttp.web.Request) -> aiohttp.web.Response:
        body = gzip.compress(ROW) if request.path.endswith(".gz") else ROW
        return aiohttp.web.Response(body=body, content_type="text/plain", headers={"ETag": "1"})

    application = aiohttp.web.Application()
    application.router.add_get("/in/", page)
    for name in ("a.jsonl", "b.pdf", "c.json.gz"):
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
    assert left_out(found) == ({"with the suffix .pdf": (1, ("b.pdf",))} if source == "in/" else {})


def test_a_page_of_links_as_servers_write_it(short_waits: None) -> None:
    """Columns to sort by, links to elsewhere and to nothing, a folder that is gone, and one that is closed."""
    links = [
        "?C=N;O=D",
        "/",
        "mailto:x@y",
        "http://elsewhere/x.jsonl",
        "a.jsonl",
        "a.jsonl#top",
        "b%20c.jsonl",
        "sub/",
        "gone/",
        "gone.jsonl",
    ]

    async def page(request: aiohttp.web.Request) -> aiohttp.web.Response:
        shown = links if request.path == "/in/" else ["../", "d.jsonl", "_SUCCESS"]
        return aiohttp.web.Response(text="".join(f'<a href="{link}">x</a>' for link in shown), content_type="text/html")

    async def document(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(body=ROW, content_type="text/plain", headers={"ETag": "1"})

    async def failing(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(status=int(request.path[-4:-1]))

    application = aiohttp.web.Application()
    for path, handler in {"/in/": page, "/in/sub/": page, "/403/": failing, "/503/": failing}.items():
        application.router.add_get(path, handler)
    for name in ("a.jsonl", "b c.jsonl", "sub/d.jsonl", "sub/_SUCCESS"):
        application.router.add_get(f"/in/{name}", document)
    with serving(application) as url:
        found = source_listing(Store(), f"{url}/in/")
        assert paths(found) == ["a.jsonl", "b%20c.jsonl", "sub/d.jsonl"]
        assert [failure.where for failure in found.failures] == [f"{url}/in/gone.jsonl", f"{url}/in/gone/"]
        assert left_out(found) == {"hidden by a leading dot or underscore": (1, ("sub/_SUCCESS",))}
        assert left_out(source_listing(Store(), f"{url}/in/*/*.jsonl")) == {"gone while it was listed": (1, ("gone/",))}
        for status in (403, 503):
            with pytest.raises(StorageError, match=rf"listing {url}/{status}/: .*{status}"):
                source_listing(Store(), f"{url}/{status}/")
    with pytest.raises(StorageError, match=r"listing .*Connect"):
        source_listing(Store(), f"{url}/in/")


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(retry, "MAX_WAIT_SECONDS", 0.002)


PAGE = """<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>{more}
<Contents><Key>in/{name}</Key><LastModified>2026-11-27T00:00:00.000Z</LastModified><ETag>"{name}"</ETag><Size>25</Size></Contents>
</ListBucketResult>"""


@pytest.mark.parametrize(("answers", "expected"), [([503, 200], ["a.jsonl", "b.jsonl"]), ([403], None), ([200], ["a.jsonl", "b.jsonl"])])
def test_a_listing_of_two_pages_is_whole_or_an_error(short_waits: None, answers: list[int], expected: list[str] | None) -> None:
    """`answers`: what the second page is answered with, in turn."""
    left = list(answers)

    async def listing(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if "list-type" not in request.query:
            return aiohttp.web.Response(status=404)
        if "continuation-token" not in request.query:
            more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
            return aiohttp.web.Response(text=PAGE.format(more=more, name="a.jsonl"), content_type="application/xml")
        status = left.pop(0) if len(left) > 1 else left[0]
        return aiohttp.web.Response(
            status=status, text=PAGE.format(more="<IsTruncated>false</IsTruncated>", name="b.jsonl"), content_type="application/xml"
        )

    application = aiohttp.web.Application()
    application.router.add_route("*", "/{path:.*}", listing)
    with serving(application) as url:
        store = Store({"key": "k", "secret": "s", "endpoint_url": url})
        if expected is None:
            with pytest.raises(StorageError, match="listing s3://b/in: "):
                store.listing("s3://b/in")
        else:
            assert sorted(item.relative_path for item in store.listing("s3://b/in").objects) == expected


@pytest.mark.parametrize("source", ["", "/*/b [1].jsonl", "/c [v2]", "/**/*.jsonl", "/c [v2]/b [1].jsonl"])
def test_file_systems_without_a_listing_of_their_own_are_walked(tmp_path: Path, source: str) -> None:
    store, root = Store(), f"memory://{tmp_path}"
    fill(root, "c [v2]/b [1].jsonl", "c [v2]/_SUCCESS", store=store)
    found = source_listing(store, root + source)
    assert [item.uri for item in found.objects] == [f"memory://{tmp_path}/c [v2]/b [1].jsonl"]
