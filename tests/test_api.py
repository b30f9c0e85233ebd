"""What `import bulkembed` offers: in this process, in a plain script, in a notebook's kernel."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import bulkembed
from bulkembed import api, errors
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.storage.store import Store
from tests.support.commands import wait_for_receipts
from tests.support.corpora import write_corpus, write_jsonl, write_slow_corpus
from tests.support.processes import PATIENCE
from tests.support.runs import in_one_process, simulated


def test_importing_it_costs_nothing() -> None:
    probe = "import sys, bulkembed; print([m for m in ('ray', 'pyarrow', 'pydantic', 'numpy', 'typer') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_offers_the_functions_the_types_and_every_error() -> None:
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, BaseException)}
    assert sorted(bulkembed.__all__) == sorted([*api.__all__, *tree])
    assert set(bulkembed.__all__) <= set(dir(bulkembed))
    for name in api.__all__:
        assert getattr(bulkembed, name).__doc__, name
    for name in tree:
        assert getattr(bulkembed, name) is getattr(errors, name)
    with pytest.raises(AttributeError, match="nosuch"):
        bulkembed.nosuch  # noqa: B018


def test_a_configuration_of_files_and_keys(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('source = "in"\nmodel = "a/b"\n[engine]\nkind = "simulated"\nreplicas = 2\n')
    cfg = bulkembed.load_config(tmp_path / "run.toml", output="s3://b/out", engine={"replicas": 3})
    assert (cfg.output, cfg.engine.kind, cfg.engine.replicas) == ("s3://b/out", "simulated", 3)
    with pytest.raises(bulkembed.ConfigError, match="outptu: unknown key; did you mean output"):
        bulkembed.load_config(tmp_path / "run.toml", outptu="s3://b/out")


def test_a_plan_says_what_a_run_would_do(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("x")
    plan = bulkembed.plan(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert (plan.objects, plan.parent, plan.is_exact, plan.rows_pending, plan.failures, plan.held_back) == (4, None, True, 200, [], None)
    assert (plan.night.added, plan.night.embedded, plan.night.reused) == (200, 200, 0)
    assert plan.left_out[0].count == 1
    assert "4 objects" in str(plan)
    estimate = plan.estimate(bulkembed.Prices(tokens_per_second=1e6, price_per_hour=3600, api_price=1))
    assert estimate.tokens.low == estimate.tokens.high > 0
    assert estimate.cost is not None and estimate.cost.best == pytest.approx(estimate.tokens.best / 1e6)
    assert estimate.api_cost is not None and estimate.api_cost.best == pytest.approx(estimate.tokens.best / 1e6)
    assert not (tmp_path / "out").exists()


def test_what_nothing_is_left_of_is_estimated_as_nothing(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    plan = bulkembed.plan(cfg)
    assert (plan.shards_pending, plan.estimate().tokens.best) == (0, 0)
    assert bulkembed.run(plan).snapshot == newest_dataset(Store(), str(tmp_path / "out"))[1]  # without any Ray


def test_an_open_dataset_stays_the_snapshot_that_it_was_opened_at(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    opened = bulkembed.open_dataset(tmp_path / "out")
    write_jsonl(tmp_path / "in" / "part-9.jsonl", [{"id": 1, "text": "one more", "lang": "xx"}])
    in_one_process(cfg)
    (tmp_path / "out" / "data" / "stray").mkdir()
    (tmp_path / "out" / "data" / "stray" / "a.parquet").write_bytes(b"no Parquet")
    assert (opened.count_rows(), bulkembed.open_dataset(tmp_path / "out").count_rows()) == (100, 101)
    footer = pq.read_schema(bulkembed.files(tmp_path / "out")[0])
    assert opened.schema.equals(footer, check_metadata=True)
    assert opened.to_table(columns=["id"], filter=pads.field("lang") == "yy").num_rows == 0


def test_a_dataset_without_a_row_has_its_schema(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "", "lang": "xx"}])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, allow_deletes=0))
    dataset = bulkembed.open_dataset(tmp_path / "out")
    assert (dataset.count_rows(), bulkembed.files(tmp_path / "out")) == (0, [])
    assert bulkembed.search(tmp_path / "out", "shard") == []
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "a text", "lang": "xx"}])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    with_rows = bulkembed.open_dataset(tmp_path / "out").schema
    assert dataset.schema.equals(with_rows)
    assert dataset.schema.metadata == {key: value for key, value in with_rows.metadata.items() if key != b"bulkembed.engine"}
    assert dataset.to_table().num_rows == 0


def test_a_dataset_over_s3_is_read_with_its_storage_options(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    write_corpus(tmp_path / "in", files=1)
    output = "s3://corpus/api/out"
    in_one_process(simulated(tmp_path / "in", output, qwen, storage=s3))
    dataset = bulkembed.open_dataset(output, storage=s3)
    assert dataset.to_table(columns=["id", "embedding"]).num_rows == 50
    assert dataset.schema.metadata[b"bulkembed.model"] == qwen.encode()
    assert [hit.columns["lang"] for hit in bulkembed.search(output, "shard", k=1, storage=s3)] == ["xx"]
    assert bulkembed.verify(output, storage=s3).problems == []
    (status,) = bulkembed.status(output, s3)
    assert (status.is_current, status.counts.documents) == (True, 50)


@pytest.mark.parametrize("function", [bulkembed.open_dataset, bulkembed.files, bulkembed.verify, lambda uri: bulkembed.search(uri, "a")])
def test_what_is_no_dataset_is_one_line(tmp_path: Path, function: Any) -> None:
    with pytest.raises(bulkembed.SourceError, match="no finished dataset there"):
        function(tmp_path)
    with pytest.raises(bulkembed.ConfigError, match="uri: holds credentials"):
        function("s3://key:secret@bucket/out")
    with pytest.raises(bulkembed.ConfigError, match="uri: must not be empty"):
        function("")


def test_problems_are_told_as_they_are_found(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    Path(bulkembed.files(tmp_path / "out")[0]).unlink()
    told: list[str] = []
    found = bulkembed.verify(tmp_path / "out", on_problem=told.append, sample=None)
    assert told == found.problems and "missing" in told[0]
    with pytest.raises(bulkembed.ConfigError, match="sample: needs the source"):
        bulkembed.verify(tmp_path / "out", sample=3)
    with pytest.raises(bulkembed.ConfigError, match=r"sample: must be at least 1 \(got -1\)"):
        bulkembed.verify(tmp_path / "out", sample=-1, source=tmp_path / "in")


def test_a_search_says_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(bulkembed.ConfigError, match="k: must be at least 1"):
        bulkembed.search(tmp_path, "a", k=0)
    with pytest.raises(bulkembed.ConfigError, match="engine: must be vllm or simulated"):
        bulkembed.search(tmp_path, "a", engine="nosuch")  # type: ignore[arg-type]


def test_a_plan_that_another_run_has_overtaken_is_made_again_before_anything_is_embedded(tmp_path: Path, qwen: str) -> None:
    """There is no Ray here, so that a run which embeds would fail."""
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    plan, told = bulkembed.plan(cfg), list[int]()
    assert plan.rows_pending == 50
    published = in_one_process(cfg).snapshot
    summary = bulkembed.run(plan, on_plan=lambda plan: told.append(plan.rows_pending))
    assert (summary.snapshot, summary.is_current, told) == (published, True, [50, 0])


@pytest.mark.usefixtures("ray_session")
def test_no_run_starts_within_another(tmp_path: Path, qwen: str) -> None:
    """They would wait for each other's cores for ever."""
    write_corpus(tmp_path / "in", files=1)
    outer, inner = (simulated(tmp_path / "in", tmp_path / name, qwen) for name in ("outer", "inner"))
    with pytest.raises(bulkembed.ConfigError, match="on_progress: must not start another run"):
        bulkembed.run(outer, on_progress=lambda _progress: print(bulkembed.run(inner)))
    assert bulkembed.run(inner).progress.counts.documents == 50


def test_an_unknown_reason_is_a_mistake(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    with pytest.raises(bulkembed.ConfigError, match=r"reason: .*'nosuch'; the reasons are null_text, .*engine_lost"):
        bulkembed.retry_rejects(cfg, ["nosuch"])
    assert bulkembed.retry_rejects(cfg, ["engine_lost"]) is None


# What a caller's process must find as it was. Importing Ray changes filters of warnings and sys.path, as any import may.
STATE = """
import faulthandler, json, logging, os, signal, sys

def state():
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return {
        "environment": dict(os.environ),
        "caught": int(status["SigCgt"], 16) & 0x7FFFFFFF,
        "blocked": status["SigBlk"],
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "hook": str(sys.excepthook),
        "faulthandler": faulthandler.is_enabled(),
        "folder": os.getcwd(),
        "scheduler": os.sched_getscheduler(0),
        "ray's logger": logging.getLogger("ray").level,
    }
"""

SCRIPT = (
    STATE
    + """
import threading
import psutil
import ray  # as a program does that has other uses for it
import bulkembed
from tests.support.processes import listening_addresses

values, address = json.loads(sys.argv[1]), sys.argv[2]
before, within = state(), []

def look(progress):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    within.append((state(), sorted(set().union(*map(listening_addresses, family)))))

def embed(name, **changes):
    return bulkembed.run(bulkembed.RunConfig(**values | {"output": values["output"] + name} | changes), on_progress=look)

terminal, sys.stderr = sys.stderr, None  # as in a daemon
thread = threading.Thread(target=embed, args=("/first",))
thread.start()
thread.join()
assert sys.stderr is None
sys.stderr = terminal
assert not ray.is_initialized()
first = state()

ray.init(address=address, log_to_driver=False, logging_level=50)  # a Ray of the program's own
joined = state()
embed("/second")
try:
    embed("/third", max_failures=1, keep_columns=["nosuch"])
except bulkembed.SourceError as error:
    refused = str(error)
failed = state()
assert ray.get(ray.remote(lambda: 5).remote()) == 5  # it is still usable
open(values["output"] + "/report.json", "w").write(json.dumps([before, first, joined, failed, within, refused]))
"""
)


@pytest.mark.ray
def test_a_script_finds_its_process_as_it_was(tmp_path: Path, qwen: str, shared_ray: None) -> None:
    """A run in a thread on a Ray of its own, one on the script's Ray, and one that fails."""
    write_corpus(tmp_path / "in", files=1)
    (tmp_path / "out").mkdir()
    values = simulated(tmp_path / "in", tmp_path / "out", qwen, ray={"num_cpus": 2}).model_dump(mode="json", exclude_defaults=True)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(values), os.environ["RAY_ADDRESS"]]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    before, first, joined, failed, within, refused = json.loads((tmp_path / "out" / "report.json").read_text())
    assert first == before
    assert failed == joined
    assert "nosuch" in refused
    during, sockets = within[0]
    assert {address.removeprefix("::ffff:") for address in sockets} <= {"127.0.0.1", "::1"}
    assert {key for key in before if during[key] != before[key]} <= {"environment", "ray's logger", "hook"}
    for name in ("first", "second"):
        assert bulkembed.open_dataset(tmp_path / "out" / name).count_rows() == 50


INTERRUPTED = """
import json, sys
import bulkembed
try:
    bulkembed.run(bulkembed.RunConfig(**json.loads(sys.argv[1])))
except KeyboardInterrupt:
    import psutil, ray
    print(json.dumps([ray.is_initialized(), [child.name() for child in psutil.Process().children(recursive=True)]]))
"""


@pytest.mark.ray
def test_an_interrupt_of_a_script_ends_ray_and_leaves_what_is_done(tmp_path: Path, qwen: str) -> None:
    rows = write_slow_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, ray={"num_cpus": 2}, engine={"kind": "simulated", "tokens_per_second": 1000})
    values = json.dumps(cfg.model_dump(mode="json", exclude_defaults=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", INTERRUPTED, values]
    script = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_receipts(tmp_path / "out", 1, script)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does
    stdout, stderr = script.communicate(timeout=PATIENCE)
    assert (script.returncode, json.loads(stdout), stderr) == (0, [False, []], "")
    plan = bulkembed.plan(cfg)
    assert plan.night.adopted > 0 and plan.rows_pending == len(rows) - plan.night.adopted > 0
    in_one_process(cfg)
    assert bulkembed.open_dataset(cfg.output).count_rows() == len(rows)


CELL = (
    STATE
    + """
import bulkembed
before = state() | {"ray's logger": logging.INFO}  # as importing it sets it
cfg = bulkembed.RunConfig(**json.loads({values!r}))
summary = bulkembed.run(cfg)
assert state() == before, (before, state())
bulkembed.open_dataset(cfg.output).to_table(columns=["id"]).num_rows, summary.progress.counts.documents
"""
)


@pytest.mark.ray
def test_a_notebook_runs_and_reads(tmp_path: Path, qwen: str, shared_ray: None) -> None:
    """In a cell: the kernel's thread has a running event loop, and its own standard streams."""
    from jupyter_client.manager import start_new_kernel

    write_corpus(tmp_path / "in", files=1)
    values = simulated(tmp_path / "in", tmp_path / "out", qwen).model_dump(mode="json", exclude_defaults=True)
    manager, client = start_new_kernel(startup_timeout=PATIENCE, kernel_name="python3")
    try:
        shown: list[dict[str, Any]] = []
        reply = client.execute_interactive(CELL.replace("{values!r}", repr(json.dumps(values))), timeout=PATIENCE, output_hook=shown.append)
        told = [message["content"] for message in shown if message["msg_type"] != "status"]
        assert reply["content"]["status"] == "ok", told
        assert [content["data"]["text/plain"] for content in told if "data" in content] == ["(50, 50)"]
        assert [content["text"] for content in told if "text" in content] == []
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_old_snapshot_is_read_by_its_number(tmp_path: Path, qwen: str) -> None:
    output = tmp_path / "out"
    for files in (1, 2):
        write_corpus(tmp_path / "in", files=files)
        in_one_process(simulated(tmp_path / "in", output, qwen))
    assert [each.documents for each in bulkembed.snapshots(output)] == [50, 100]
    assert bulkembed.current(output).number == 2
    assert bulkembed.open_dataset(output, snapshot=1).count_rows() == 50
    assert set(bulkembed.files(output, snapshot=1)) < set(bulkembed.files(output)), "the files of the first night stay"
    assert bulkembed.verify(output, snapshot=1).snapshot.number == 1
    assert bulkembed.rollback(output, to=1).number == bulkembed.current(output).number == 3
    assert bulkembed.open_dataset(output).count_rows() == 50
    assert bulkembed.publish(output, 3).number == 3
    assert bulkembed.verify(output).problems == []
