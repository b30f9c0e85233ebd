"""Options of `[storage]`, of both sides and of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.config import set_conf_env
from s3fs import S3FileSystem

from bulkembed.errors import ConfigError, StorageError, StoreSetupError
from bulkembed.runs.lookup import open_job
from bulkembed.storage.options import of_side
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.processes import bulkembed
from tests.support.runs import in_one_process, read_dataset, simulated
from tests.support.web import web_server


def test_options_of_a_side_replace_those_of_both_key_by_key() -> None:
    settings = {"anon": True, "key": "k", "source": {"key": "s"}, "output": {"anon": False}}
    assert of_side(settings, "source") == {"anon": True, "key": "s"}
    assert of_side(settings, "output") == {"anon": False, "key": "k"}
    assert Store(settings).of_source() == Store({"anon": True, "key": "s"}, "source")


@pytest.mark.parametrize(
    ("uri", "settings", "line"),
    [
        (
            "http://h/a",
            {"endpoint_url": "x"},
            "storage.endpoint_url: the source is on http://, which has no such option; an option of the output",
        ),
        ("s3://b/a", {"anonn": True}, "storage.anonn: the source is on s3://, which has no such option; did you mean anon?"),
        ("s3://b/a", {"config_kwargs": {"read_timeuot": 1}}, "storage.config_kwargs.read_timeuot: .* did you mean read_timeout?"),
        ("s3://b/a", {"client_kwargs": 3}, "storage.client_kwargs: expected a table"),
        ("s3://b/a", {"source": {"secrett": "s"}}, "^storage.source.secrett: .* did you mean secret?"),
        ("s3://b/a", {"source": {"config_kwargs": {"read_timeuot": 1}}}, "^storage.source.config_kwargs.read_timeuot: "),
        ("s3://b/a", {"source": {"client_kwargs": 3}}, "^storage.source.client_kwargs: expected a table"),
        ("s3://b/a", {"output": {"secrett": "s"}, "anon": "False"}, "^storage.anon: expected true or false"),
        ("s3://b/a", {"requester_pays": "false"}, "^storage.requester_pays: expected true or false"),
        ("s3://b/a", {"use_ssl": "no"}, "^storage.use_ssl: expected true or false"),
        ("s3://b/a", {"secret": 1234}, "^storage.secret: expected a text in quotes"),
        ("s3://b/a", {"default_block_size": "5MB"}, "^storage.default_block_size: expected a number"),
        ("s3://b/a", {"max_concurrency": True}, "^storage.max_concurrency: expected a number"),
        ("s3://b/a", {"config_kwargs": {"read_timeout": "abc"}}, "^storage.config_kwargs.read_timeout: expected a number"),
        ("s3://b/a", {"config_kwargs": {"retries": 3}}, "^storage.config_kwargs.retries: expected a table"),
        ("s3://b/a", {"config_kwargs": {"s3": {"addressing_style": "x"}}}, "^storage: the source cannot be opened .*addressing style x"),
        ("s3://b/a", {"endpoint_url": "127.0.0.1:9"}, "^storage: the source cannot be opened .*Invalid endpoint"),
        ("s3://b/a", {"endpoint_url": "http://[::1"}, "^storage: the source cannot be opened .*Invalid IPv6 URL"),
        ("s3://b/a", {"profile": "nobody"}, r"^storage: the source cannot be opened .*profile \(nobody\)"),
        ("s3://b/a", {"username": "a", "key": "b"}, "^storage: the source cannot be opened .*not both"),
        ("http://h/a", {"simple_links": "yes"}, "^storage.simple_links: expected true or false"),
        ("s3://b/a", {"source": 3}, "storage.source: expected a table"),
        ("hf://datasets/a/b", {"anon": True}, "storage.anon: the source is on hf://"),
        ("nfs4://a/b", {}, "nfs4://: cannot be opened: Protocol not known: nfs4"),
        ("ftp://h/a", {}, r"storage.host: ftp:// cannot be opened without it; set it in \[storage\] or \[storage.source\]"),
        ("generic://h/a", {}, "generic://h/a: a file system inside another one is not read"),
        ("smb://a/b", {}, "smb://: needs a package that is not installed: pip install smbprotocol"),
    ],
)
def test_what_a_file_system_does_not_take_is_one_line(uri: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        Store(settings).of_source().names(uri)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Unable to locate credentials; give credentials in the environment or in"),
        ({"key": "k", "secret": "s", "config_kwargs": {"signature_version": "none"}}, "Unknown Signature Version"),
        ({"key": "k", "secret": "s", "client_kwargs": {"verify": "/nowhere.pem"}, "endpoint_url": "https://127.0.0.1:1"}, "No such file"),
    ],
)
def test_what_only_a_request_finds_is_told_at_once_as_the_users_to_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qwen: str, settings: dict[str, Any], line: str
) -> None:
    S3FileSystem.clear_instance_cache()  # one of them may have found the credentials of another test
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("bulkembed.storage.retry.FIRST_WAIT_SECONDS", 100)
    write_corpus(tmp_path / "in", files=1)
    for source, output in (("s3://b/a", tmp_path / "out"), (tmp_path / "in", "s3://b/a")):
        with pytest.raises(StoreSetupError, match=line) as caught:
            open_job(simulated(source, output, qwen, storage=settings))
        assert caught.value.exit_code == 2
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"FSSPEC_S3_ANONN": "1"}, "FSSPEC_S3_ANONN .*has no such option; did you mean anon?"),
        ({"FSSPEC_S3_ANON": "no"}, "FSSPEC_S3_ANON .*expected true or false"),
        ({"FSSPEC_S3": '{"secret": 3}'}, "FSSPEC_S3_SECRET .*expected a text"),
    ],
)
def test_options_in_variables_of_fsspec_are_checked_too(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str) -> None:
    """s3fs takes any name without a word."""
    monkeypatch.setattr("fsspec.config.conf", found := dict[str, Any]())
    set_conf_env(found, variables)
    with pytest.raises(ConfigError, match=line):
        Store({"key": f"of {variables}"}).names("s3://b/a")


@pytest.mark.parametrize(
    ("uri", "settings"),
    [
        ("s3://b/a", {"profile": "of-ours", "client_kwargs": {"region_name": "x"}, "requester_pays": True, "use_ssl": False}),
        ("http://h/a", {"headers": {"Authorization": "x"}, "client_kwargs": {"trust_env": True}, "block_size": 1 << 20}),
        ("hf://datasets/a/b", {"token": "t", "endpoint": "http://127.0.0.1:1"}),
    ],
)
def test_what_a_file_system_takes_is_given_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, settings: dict[str, Any]
) -> None:
    (tmp_path / "aws").write_text("[profile of-ours]\nregion = x\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    assert settings.items() <= Store(settings)._locate(uri)[0].storage_options.items()


def test_a_source_and_an_output_of_different_protocols(tmp_path: Path, qwen: str, bucket: tuple[Store, str]) -> None:
    """Also from a server that has no ranges, which Parquet needs, and no ETags."""
    store, root = bucket
    write_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    with web_server(tmp_path / "in") as url:
        wrong = simulated(f"{url}/", f"{root}/out", qwen, storage=store.settings)
        with pytest.raises(ConfigError, match=r"endpoint_url: the source is on http://.*\[storage.output\]"):
            open_job(wrong)
        summary = in_one_process(simulated(f"{url}/", f"{root}/out", qwen, storage={"output": store.settings}))
        summary.require_complete()
        again = in_one_process(simulated(f"{url}/", f"{root}/out", qwen, storage={"output": store.settings}))
        assert again.night.added == again.night.deleted == 0
    rows = read_dataset(f"{root}/out", **store.settings)
    assert rows.sort_by("id").equals(read_dataset(tmp_path / "out").sort_by("id"))


def test_an_anonymous_source_and_an_output_of_ones_own(tmp_path: Path, qwen: str, bucket: tuple[Store, str]) -> None:
    store, root = bucket
    write_corpus(tmp_path / "in", files=1)
    store.put(f"{root}/in/a.parquet", (tmp_path / "in/part-0.parquet").read_bytes())
    client, path = store._locate(f"{root}/in/a.parquet")
    client.chmod(path, "public-read")
    options = {"endpoint_url": store.settings["endpoint_url"], "source": {"anon": True}, "output": dict(store.settings)}
    cfg = simulated(f"{root}/in", f"{root}/out", qwen, storage=options)
    job, _ = open_job(cfg)
    assert [each._locate(root)[0].anon for each in (job.source_store, job.store)] == [True, False]
    in_one_process(cfg).require_complete()


def test_a_side_from_the_command_line(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "a b"}\n')
    with web_server(tmp_path) as url:
        common = ["--source", f"{url}/a.jsonl", "--output", tmp_path / "out", "--model", qwen]
        assert bulkembed("plan", *common, "--set", "storage.source.headers.Accept=text/plain").returncode == 0
        refused = bulkembed("plan", *common, "--set", "storage.source.header=secret-text")
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].endswith("did you mean headers?")
    assert "secret-text" not in refused.stderr


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.storage.retry.ATTEMPTS", 2)
    monkeypatch.setattr("bulkembed.storage.retry.FIRST_WAIT_SECONDS", 0.01)
    for uri, options in (
        ("hf://datasets/a/b", {"endpoint": "http://127.0.0.1:1"}),
        ("s3://b/a", {"endpoint_url": "http://127.0.0.1:1", "key": "k", "secret": "s"}),
        ("http://127.0.0.1:1/a.jsonl", {}),
        ("hdfs://127.0.0.1:1/a", {}),
    ):
        with pytest.raises(StorageError) as caught:
            Store({"source": options}).of_source().objects(uri)
        assert len(str(caught.value).splitlines()) == 1
        assert uri.split("://", maxsplit=1)[0] in str(caught.value)


@pytest.mark.parametrize("side", ["source", "output"])
def test_a_store_that_is_down_while_a_run_is_planned_is_no_mistake(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr("bulkembed.storage.retry.ATTEMPTS", 2)
    monkeypatch.setattr("bulkembed.storage.retry.FIRST_WAIT_SECONDS", 0.01)
    write_corpus(tmp_path / "in", files=1)
    places = {"source": str(tmp_path / "in"), "output": str(tmp_path / "out"), side: "s3://corpus/x"}
    down = {"endpoint_url": "http://127.0.0.1:1", "key": "k", "secret": "s"}
    with pytest.raises(StorageError, match=f"^{side}: .*127.0.0.1:1") as caught:
        open_job(simulated(places["source"], places["output"], qwen, storage=down))
    assert caught.value.exit_code == 1
