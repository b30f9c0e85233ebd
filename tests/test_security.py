"""Credentials appear nowhere: not in what is printed, not in what is written."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cli import app
from bulkembed.config import credentials
from bulkembed.config.credentials import REFUSED, mask_credentials, shows_credentials
from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from bulkembed.errors import ConfigError
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.processes import PATIENCE, ROOT, bulkembed
from tests.support.runs import simulated

SECRET = "hunter2-planted-secret"


@pytest.mark.parametrize("key", ["source", "output", "model"])
@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"https://user:{SECRET}@host/x.parquet",
        f"https://host/x.parquet?X-Amz-Signature={SECRET}",
        f"https://host/x.parquet?a=b&sig={SECRET}",
        f"https://{SECRET}@host/x",
        f"HTTPS://user:{SECRET}@host/x",
        f"https://user%3A{SECRET}%40host/x",
        f"https:\\\\user:{SECRET}@host/x",
        f"https:/user:{SECRET}@host/x",
        f"https://host/x?{SECRET}",
        f"https://host/x#access_token={SECRET}",
        f"https://host/x?download&{SECRET}",
        f"https://host/x%3Fcode={SECRET}",
        f"https://host/https://user:{SECRET}@other/x",
        f"s3://key:se/cr+et{SECRET}@bucket/x",
        f"s3://bucket/x?x-amz-security-token={SECRET}",
        f"abfs://container:{SECRET}@account.dfs.core.windows.net/x",
        f"abfs://container@account.dfs.core.windows.net/x?sv=2024&sig={SECRET}",
        f"zip://x.jsonl::https://user:{SECRET}@host/x.zip",
        f"simplecache::https://host/x?sig={SECRET}",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(key: str, uri: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: (holds credentials|begins with https:/, and a slash is missing)") as caught:
        load(None, {"source": "in", "output": "out", "model": "m"} | {key: uri})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket/part-?.jsonl",
        "s3://bucket/dt=2024-01-0?/hour=1?/x",
        "s3://bucket/a@b/c&d=e",
        "s3://bucket/x?versionId=abc",
        "gs://bucket/x?Generation=5",
        "gs://bucket/x#1700000000",
        "abfs://container@account.dfs.core.windows.net/x",
        "https://host:8443/x.parquet?download=true",
        "https://[::1]:8443/x.parquet",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/name/x",
        "zip://x.jsonl::s3://bucket/x.zip",
        "file:///data/a@b/c?d=e#f",
        "/data/a@b/c?token=d#e",
        "org/model@v1",
    ],
)
def test_a_place_without_credentials_is_taken(place: str) -> None:
    assert not shows_credentials(place)


@given(st.text(), st.sampled_from(["https", "S3", "gs", "abfs", "sftp", "file"]), st.text(), st.sampled_from(["", "zip://x::", "/data/"]))
def test_a_user_with_a_password_is_always_seen(user: str, scheme: str, password: str, before: str) -> None:
    assert shows_credentials(f"{before}{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@host/x")


def test_commands_that_take_a_place_refuse_credentials_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    place = f"s3://key:{SECRET}@bucket/x"
    for arguments in (
        ["status", "--output", place],
        ["files", "--output", place],
        ["verify", "--output", place],
        ["verify", "--output", "out", "--sample", "1", "--source", place],
        ["search", "--output", place, "--query", "x"],
        ["search", "--output", "out", "--query", "x", "--model", place],
        ["check", "--model", place],
    ):
        assert line_of(arguments, capsys).endswith(REFUSED)


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must end with 2 and not show the secret."""
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2, printed.err
    assert SECRET not in printed.out + printed.err
    return printed.err.splitlines()[-1]


SETTINGS = [
    ("{}", "--set: expected KEY=VALUE"),
    ("a b={}", "--set a b=...: 'a b' is not a key"),
    ("storage = {}", "storage: "),
    ("storage={}", "storage: "),
    ('storage=["{}"]', "storage: "),
    ("engine={}", "engine: "),
    ("engine.env={}", "engine.env: "),
    ('engine.env={{A = ["{}"]}}', "engine.env: "),
    ("engine.args={}", "engine.args: "),
    ('engine.args={{dtype="{}"}}', "engine: args: dtype is not taken here: give engine.dtype"),
    ("engine.num_gpus={}", "engine.num_gpus: expected a number, such as 0.5"),
    ('engine={{kind="{}"}}', "engine.kind: expected one of vllm, simulated"),
    ("engine.dtype={}", "engine.dtype: expected one of auto, bfloat16"),
    ("vectors=64:int8,{}:int8", "vectors: cannot be what --set gives"),
    ('vectors=["{}"]', "vectors: cannot be what --set gives"),
    ("template={{{}}}", "cannot be what --set gives"),
    ('text_columns=["a", "{}"]', "template: "),
    ('keep_columns=["embedding_{}"]', "cannot be what --set gives"),
    ('shards={{"{}"=1}}', "shards: unknown key"),
    ("source=/no/such/{}", "source ***"),
    ("revision={}", "revision: "),
    ("model={}", "model: ***"),
    ("prompt_name={}", "prompt_name: "),
    ("id_column={}", "no column '***'"),
    ("column_types.id={}", "column_types.id: "),
    ("ray.layout={}", "ray.layout: expected one of auto, fused, split"),
    ("source=https://user:{}@host/x", "source: holds credentials"),
]


@pytest.mark.parametrize(("setting", "message"), SETTINGS)
def test_no_message_repeats_a_value_of_set(
    tmp_path: Path, qwen: str, setting: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials.hidden_texts, "texts", set())
    write_corpus(tmp_path / "in", files=1)
    key = setting.partition("=")[0].strip()
    flags = {"source": tmp_path / "in", "output": tmp_path / "out", "model": qwen}
    given = [f"--{name}={value}" for name, value in flags.items() if name != key]
    assert message in line_of(["plan", *given, "--set", setting.format(SECRET)], capsys)


@pytest.mark.parametrize("kind", ["int64", "string", "large_string", "decimal128(20, 4)", "timestamp[us, tz=Europe/Berlin]", "date32"])
def test_a_message_may_name_the_type_that_column_types_sets(kind: str) -> None:
    texts = credentials.HiddenTexts()
    texts.add([kind, f"{kind}-{SECRET}"])
    message = f"set column_types.price = {kind!r}"
    assert texts.hide(message) == message and SECRET not in texts.hide(f"{message}, {kind}-{SECRET}")


def test_no_message_repeats_what_stands_behind_a_setting_by_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    line_of(["plan", "--set", "storage.secret", "=", SECRET], capsys)
    line_of(["plan", "--set", f"storage.secret={SECRET}", "--sett", "x"], capsys)


def test_a_mistake_beside_engine_env_does_not_show_it() -> None:
    engine = {"env": {"TOKEN": SECRET}, "args": {"dtype": SECRET}}
    with pytest.raises(ConfigError, match="engine: args: dtype") as caught:
        load(None, {"source": "in", "output": "out", "model": "m", "engine": engine})
    assert SECRET not in str(caught.value)


def test_messages_of_other_libraries_lose_the_credentials_in_their_uris() -> None:
    message = 'Could not connect to "http://key:secret@host:9000/bucket" nor https://hub/file?X-Amz-Signature=1, but s3://bucket/x is there'
    assert mask_credentials(message) == 'Could not connect to "http://***" nor https://***, but s3://bucket/x is there'


@pytest.mark.parametrize("place", ["ray://127.0.0.1:10001", "s3://bucket", "http://[::1]:9000", "gs://a/b"])
def test_a_message_names_the_place_before_its_colon(place: str) -> None:
    assert mask_credentials(f"no Ray at {place}: Connection refused") == f"no Ray at {place}: Connection refused"


@pytest.mark.parametrize("values", [{"storage": SECRET}, {"engine": {"env": {"A": [SECRET]}}}, {"engine": {"env": SECRET}}])
def test_a_mistake_beside_a_secret_does_not_show_it(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {"source": "in", "output": "out", "model": "m"} | values)
    assert SECRET not in str(caught.value)


def test_a_configuration_shows_no_secret() -> None:
    values = {"source": "in", "output": "out", "model": "m", "storage": {"secret": SECRET}, "engine": {"env": {"TOKEN": SECRET}}}
    assert SECRET not in repr(RunConfig.model_validate(values))


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("trouble", ["none", "no bucket", "broken object"])
def test_secrets_are_in_nothing_that_is_printed_or_written(tmp_path: Path, qwen: str, s3: dict[str, Any], trouble: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    if trouble == "broken object":
        (tmp_path / "in" / "part-0.parquet").write_bytes(b"broken")
    store, root = Store(s3), f"s3://corpus/{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        store.put(f"{root}/in/{path.name}", path.read_bytes())
    source = "s3://no-such-bucket/in" if trouble == "no bucket" else f"{root}/in"
    storage = f'storage={{key="planted-key", secret="{SECRET}", endpoint_url="{s3["endpoint_url"]}"}}'
    common = ("--model", qwen, "--set", "engine.kind=simulated", "--max-tokens", 64, "--set", "ray.num_cpus=2")
    result = bulkembed(
        *("run", "--source", source, "--output", f"{root}/out", *common, "--set", storage, "--set", f'engine.env={{HF_TOKEN="{SECRET}"}}'),
        BULKEMBED_LOG="debug",
        AWS_SECRET_ACCESS_KEY=SECRET,
    )
    assert result.returncode == {"none": 0, "no bucket": 2, "broken object": 1}[trouble], result.stderr[-500:]
    assert SECRET not in result.stdout + result.stderr
    for item in store.objects(root):
        assert SECRET.encode() not in store.read(item.uri), item.uri


# A whole run in this process's Ray; prints the addresses that its processes listen at, and what the actor has in its environment.
RUN = """
import json, logging, os, sys
from contextlib import ExitStack
import psutil
import ray  # as a program may that has other uses for it
from bulkembed.cluster.on_demand import OnDemand
from bulkembed.config.run_config import RunConfig
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish
from tests.support.processes import listening_addresses

job, plan = open_job(RunConfig.model_validate_json(sys.stdin.read()))
with ExitStack() as stack:
    executor = OnDemand(job, stack)
    (actor,) = executor.started(plan.pending, job).pool.loading.values()
    finish(job, plan, lambda progress: None, executor).require_complete()
    has = ray.get(actor.__ray_call__.remote(lambda _self: dict(os.environ)))
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = set().union(*map(listening_addresses, family))
    print(json.dumps([has["TOKEN"], has["MALLOC_PERTURB_"], sorted(sockets), os.environ.get("TOKEN")]))
    logging.error("%r %r", job, job.cfg)
"""


@pytest.mark.ray
def test_a_secret_of_the_engine_is_in_no_file_of_rays(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And `ray.address = "local"` listens on loopback alone."""
    write_corpus(tmp_path / "in", files=1)
    engine = {"kind": "simulated", "env": {"TOKEN": SECRET, "MALLOC_PERTURB_": "0"}}
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, engine=engine, ray={"num_cpus": 2, "layout": "split", "address": "local"})
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # a socket's path is short
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "debug")
        monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
        given = cfg.model_dump_json()  # not on the command line, which Ray's agent reads of every process
        ran = subprocess.run(
            [sys.executable, "-c", RUN], cwd=ROOT, input=given, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert any(b"MALLOC_PERTURB_" in path.read_bytes() for path in files), "Ray's logs show what it is asked for"
        assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    token, public, listening, own = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith('["')))
    assert (token, public, own) == (SECRET, "0", None)
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}
    assert SECRET not in ran.stderr
