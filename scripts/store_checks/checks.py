"""What bulkembed needs of a store. Each check returns what it found in a few words, or raises."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import BufferingHandler

from bulkembed.dataset import leases
from bulkembed.dataset.gc import GcRules, gc
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import ConfigError, ObjectError, StorageError
from bulkembed.inspection.verify import verify
from bulkembed.storage.store import Store
from scripts.samples import random_qwen3
from scripts.store_checks.servers import WORK, Options, Server
from tests.support.faulty_s3 import FaultyS3
from tests.support.runs import in_one_process, live_names, read_dataset, simulated

KEYS = 1_100  # more than one page of a listing
OBJECTS = 60


class Wrong(Exception):
    """The store, or bulkembed with it, does something wrong."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)


def create_only(store: Store, root: str) -> str:
    """Eight writers create one object at once. A run finds what lets several succeed before it does anything."""
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.create(f"{root}/one", bytes([number])), range(8)))
    late, said = store.create(f"{root}/one", b"late"), said_at_start(store, f"{root}/out")
    if won.count(True) == 1:
        require(not late, "a later writer replaces the object")
        require(not said, f"a run says of an honest store: {said}")
        return "one of 8 succeeds"
    require(said == ("refused" if late else "named"), f"a run does not say that {won.count(True)} of 8 succeed at once")
    return f"NO: {won.count(True)} of 8 succeed at once{', and a later one' if late else ''}; {said} at start"


def said_at_start(store: Store, output: str) -> str:
    """What a run says of a store before it does anything: nothing, that two runs are never to write at once, or that it refuses it."""
    handler = BufferingHandler(capacity=100)
    leases.log.addHandler(handler)
    try:
        leases.require_create_only(store, output)
    except ConfigError:
        return "refused"
    finally:
        leases.log.removeHandler(handler)
    return "named" if handler.buffer else ""


def listing(store: Store, root: str) -> str:
    """More keys than a page holds, with a key beside them that begins alike."""
    names = [f"{number:04d}.bin" for number in range(KEYS)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.put(f"{root}/keys/{name}", b"x"), [*names]))
    store.put(f"{root}/keys-not/a.bin", b"x")
    require(store.names(f"{root}/keys") == names, "names of a folder")
    require([item.relative_path for item in store.listed(f"{root}/keys")] == names, "objects below a folder")
    store.delete_folder(f"{root}/keys")
    require([item.relative_path for item in store.objects(root)] == ["keys-not/a.bin"], "a folder that is deleted")
    return f"{KEYS:,} keys"


def ranges(store: Store, root: str) -> str:
    data = bytes(range(256)) * 40_000  # 10 MB: more than is read ahead
    store.put(f"{root}/a.bin", data)
    with store.open(f"{root}/a.bin") as file:
        file.seek(-1_000, 2)
        require(file.read(500) == data[-1_000:-500], "a range near the end")
    with store.open_stream(f"{root}/a.bin") as stream:
        require(stream.read() == data, "a stream")
    require(store.read_start(f"{root}/a.bin", 10) == data[:10], "the first bytes")
    return "yes"


def versions(store: Store, root: str) -> str:
    store.put(f"{root}/a", b"one")
    before = store.objects(root)[0]
    require(store.version(f"{root}/a") == before.version, "one version in listings and of the object")
    store.put(f"{root}/a", b"two")
    require(store.version(f"{root}/a") != before.version, "a new version for a new content")
    try:
        store.open(f"{root}/a", before.version)
    except ObjectError:
        return "yes" if before.modified else "yes, without a time"
    raise Wrong("an object that has changed is read")


def missing(store: Store, root: str) -> str:
    """Of an object, of a folder, and of a bucket."""
    for uri in (f"{root}/nothing", f"{root.partition('corpus')[0]}no-such-bucket/a"):
        try:
            store.read(uri)
        except FileNotFoundError:
            continue
        except StorageError as error:
            require(len(str(error).splitlines()) == 1, f"one line: {error}")
            continue
        raise Wrong(f"{uri} can be read")
    require(store.names(f"{root}/nothing") == [], "names of a folder that is not there")
    store.delete(f"{root}/nothing")
    return "yes"


def faults(server: Server, url: str, root: str) -> str:
    """Every fifth answer is an error, or breaks."""
    with FaultyS3(url, seed=1, rate=0.2, faults=["503", "500", "reset"]) as proxy:
        store = Store(server.options(proxy.url))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: store.put(f"{root}/{number}", str(number).encode()), range(OBJECTS)))
            read = list(pool.map(lambda number: store.read(f"{root}/{number}"), range(OBJECTS)))
        require(read == [str(number).encode() for number in range(OBJECTS)], "what was written is read")
        require(len(store.names(root)) == OBJECTS, "all objects are listed")
        broken = sum(count for fault, count in proxy.counts.items() if fault != "good")
    return f"{broken} faults, nothing lost"


def wrong_credentials(server: Server, url: str, root: str) -> str:
    if server.wrong is None:
        return "not asked for"
    with FaultyS3(url, seed=1, rate=0, faults=[]) as proxy:
        store = Store(server.wrong(proxy.url))
        for ask in (store.names, store.read, lambda uri: store.put(f"{uri}/a", b"x")):
            try:
                ask(root)
            except StorageError as error:
                require(len(str(error).splitlines()) == 1, f"one line: {error}")
                require("credentials" in str(error), f"says what to do: {error}")
                continue
            return "accepted"
        require(proxy.counts["good"] < 20, f"no retries: {proxy.counts['good']} requests")
    return "one line"


def nights(server: Server, options: Options, root: str) -> str:
    """A run, a night with one changed row, a look at everything, and the old snapshot freed."""
    model = model_folder()
    store = Store(options)
    try:
        leases.require_create_only(store, f"{root}/out")
    except ConfigError:
        return "refused as an output"
    rows = [{"id": number, "text": f"document {number}", "lang": "en"} for number in range(300)]
    for night in range(2):
        rows[7]["text"] = f"changed {night}"
        store.put(f"{root}/in/a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        summary = in_one_process(simulated(f"{root}/in", f"{root}/out", model, storage=options))
        summary.require_complete()
        embedded = summary.night.embedded
        require(embedded == (300, 1)[night], f"night {night + 1} embeds {embedded}")
    require(read_dataset(f"{root}/out", **options).num_rows == 300, "300 rows")
    found = list(verify(store, *newest_dataset(store, f"{root}/out")))
    require(not found, f"verify: {found}")
    gc(store, f"{root}/out", GcRules(keep=1, grace=0, older_than=0, max_share=1))
    require(len(store.listed(f"{root}/out/data")) == len(live_names(f"{root}/out", **options)), "gc deletes what no snapshot lists")
    found = list(verify(store, *newest_dataset(store, f"{root}/out")))
    require(not found, f"verify after gc: {found}")
    return "300 + 1 embedded"


def model_folder() -> str:
    folder = WORK / "Qwen3-Embedding-tiny"
    if not folder.exists():
        random_qwen3.make(folder, "tiny")
    return str(folder)


OF_STORE: dict[str, Callable[[Store, str], str]] = {
    "create-only PUT": create_only,
    "listing": listing,
    "ranges": ranges,
    "versions": versions,
    "missing objects": missing,
}
OF_SERVER: dict[str, Callable[[Server, str, str], str]] = {
    "503, 500, broken answers": faults,
    "wrong credentials": wrong_credentials,
    "two nights, verify, gc": lambda server, url, root: nights(server, server.options(url), root),
}
NAMES = [*OF_STORE, *OF_SERVER]


def outcome(name: str, server: Server, url: str) -> str:
    """What a check says in a folder of its own; what went wrong, after FAILED."""
    root = f"{server.root}/{NAMES.index(name)}"
    try:
        if name in OF_STORE:
            return OF_STORE[name](Store(server.options(url)), root)
        return OF_SERVER[name](server, url, root)
    except Exception as error:  # noqa: BLE001 - the table says so, and the command fails
        return f"FAILED: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
