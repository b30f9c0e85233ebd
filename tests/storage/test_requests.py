"""How many requests each operation of a store takes on S3. Every one costs a night some 20 to 50 ms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkembed.storage.store import Store
from tests.support.counted_s3 import CountedS3


@pytest.fixture
def counted(s3: dict[str, Any]) -> Iterator[tuple[Store, CountedS3]]:
    with CountedS3(s3["endpoint_url"]) as proxy:
        yield Store(s3 | {"endpoint_url": proxy.url}), proxy


@pytest.mark.parametrize(
    ("operation", "result", "kinds"),
    [
        (lambda store, root: store.names(f"{root}/there"), ["a", "deep"], {"LIST": 1}),
        (lambda store, root: store.names(f"{root}/nothing"), [], {"LIST": 1}),
        (lambda store, root: store.names(f"{root}/there/a"), [], {"LIST": 1}),
        (lambda store, root: [item.relative_path for item in store.listed(f"{root}/there/")], ["a", "deep/b"], {"LIST": 1}),
        (lambda store, root: [item.size for item in store.listed(f"{root}/nothing")], [], {"LIST": 1}),
        (lambda store, root: store.listed(f"{root}/there/a"), [], {"LIST": 1}),
        (lambda store, root: store.read(f"{root}/there/a"), b"1", {"GET": 1}),
        (lambda store, root: store.stands(f"{root}/there"), True, {"LIST": 1}),
        (lambda store, root: [item.relative_path for item in store.objects(f"{root}/there")], ["a", "deep/b"], {"LIST": 1, "HEAD": 1}),
    ],
)
def test_an_operation_takes_one_request(
    counted: tuple[Store, CountedS3], tmp_path: Path, operation: Callable[[Store, str], Any], result: Any, kinds: dict[str, int]
) -> None:
    store, proxy = counted
    root = f"s3://corpus/{tmp_path.name}"
    for name in ("there/a", "there/deep/b", "there-too/c"):
        store.put(f"{root}/{name}", b"1")
    proxy.taken()
    assert operation(store, root) == result
    assert proxy.kinds() == Counter(kinds)


def test_a_record_that_is_not_there_takes_one_request(counted: tuple[Store, CountedS3], tmp_path: Path) -> None:
    store, proxy = counted
    with pytest.raises(FileNotFoundError):
        store.read(f"s3://corpus/{tmp_path.name}/nothing")
    assert proxy.kinds() == Counter(GET=1)
