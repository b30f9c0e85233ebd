import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bulkembed.errors import ConfigError, StorageError
from bulkembed.runs.overlap import refuse_overlap
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join


def test_put_read_list_names(place: tuple[Store, str]) -> None:
    store, root = place
    store.put(f"{root}/a/b.bin", b"one")
    store.put(f"{root}/a/b.bin", b"three")
    assert store.read(f"{root}/a/b.bin") == b"three"
    assert [(item.uri, item.relative_path, item.size) for item in store.objects(root)] == [(f"{root}/a/b.bin", "a/b.bin", 5)]
    assert store.names(f"{root}/a") == ["b.bin"]
    assert store.names(f"{root}/nothing") == []
    assert store.version(f"{root}/a/b.bin") == store.objects(root)[0].version


def test_a_new_content_is_a_new_version(place: tuple[Store, str]) -> None:
    store, root = place
    store.put(f"{root}/a", b"one")
    before = store.version(f"{root}/a")
    store.put(f"{root}/a", b"two")
    assert store.version(f"{root}/a") != before


def test_only_one_of_many_creates(place: tuple[Store, str]) -> None:
    store, root = place
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.create(f"{root}/one", bytes([number])), range(8)))
    assert won.count(True) == 1
    assert store.read(f"{root}/one") == bytes([won.index(True)])


def test_a_folder_goes_with_all_that_is_in_it(place: tuple[Store, str]) -> None:
    store, root = place
    for name in ("gone/a", "gone/b/c", "gone-not/a"):
        store.put(join(root, name), b"")
    for _ in range(2):
        store.delete_folder(join(root, "gone"))
        assert [item.relative_path for item in store.objects(root)] == ["gone-not/a"]


def test_a_missing_object_is_file_not_found(place: tuple[Store, str]) -> None:
    store, root = place
    with pytest.raises(FileNotFoundError):
        store.read(f"{root}/nothing")


def test_a_failed_local_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        Store().put(f"{tmp_path}/a", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionResetError(), 3),
        (TimeoutError(), 3),
        (OSError(5, "Input/output error"), 3),
        (PermissionError(13, "no"), 1),
        (OSError("corrupt: no number"), 1),
        (ValueError("a bug"), 1),
    ],
)
def test_only_transient_faults_are_retried(monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 3)
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    counted: list[int] = []

    def work() -> None:
        counted.append(1)
        raise error

    with pytest.raises(Exception) as caught:
        Store().retrying(work, "reading x")
    assert len(counted) == calls
    assert isinstance(caught.value, StorageError if (error.args and isinstance(error.args[0], int)) or calls > 1 else type(error))


def test_work_that_recovers_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    outcomes: list[Any] = [ConnectionResetError(), TimeoutError(), "done"]

    def work() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert Store().retrying(work, "reading x") == "done"


def test_waits_between_attempts_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """About a minute in all; processes that failed together come back one by one."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)

    def fail() -> None:
        raise ConnectionResetError

    for _ in range(20):
        with pytest.raises(StorageError):
            Store().retrying(fail, "reading x")
    bounds = [0.5, 1, 2, 4, 8, 16, 20]
    by_attempt = list(zip(*(waited[at : at + len(bounds)] for at in range(0, len(waited), len(bounds))), strict=True))
    assert len(by_attempt) == len(bounds)
    for waits, bound in zip(by_attempt, bounds, strict=True):
        assert len(set(waits)) == 20
        assert bound / 2 < max(waits) <= bound


def test_a_wait_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, waited, attempts = time.sleep, list[float](), list[float]()

    def note(seconds: float) -> None:
        waited.append(seconds)
        sleep(seconds)

    def fail_at_first() -> float:
        attempts.append(time.monotonic())
        if len(attempts) < 4:
            raise ConnectionResetError
        return attempts[-1] - attempts[0]

    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr("tenacity.nap.time.sleep", note)
    assert Store().retrying(fail_at_first, "reading x") >= sum(waited) > 0
    assert len(waited) == 3


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("/a/b", "/a/b"),
        ("/a/b", "/a/b/c"),
        ("/a/b/*.parquet", "/a/b/out"),
        ("/a/out/data", "/a/out"),
        ("s3://b/x", "s3://b/x/y"),
        ("s3://b/x/", "s3://b/x"),
    ],
)
def test_an_output_inside_the_source_is_refused(source: str, output: str) -> None:
    with pytest.raises(ConfigError, match="inside one another"):
        refuse_overlap(Store(), source, output)


@pytest.mark.parametrize(("source", "output"), [("/a/b", "/a/bc"), ("s3://b/x", "s3://b/y"), ("/a/corpus", "/a"), ("s3://a/x", "gs://a/x")])
def test_places_side_by_side_are_fine(source: str, output: str) -> None:
    refuse_overlap(Store(), source, output)


def test_a_setting_beyond_64_bits_is_one_line() -> None:
    with pytest.raises(ConfigError, match="storage: holds what no file system takes: Integer exceeds 64-bit range"):
        Store({"port": 1 << 64})
