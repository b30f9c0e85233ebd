"""Credentials appear nowhere: not in what is printed, not in what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.flags import load
from pipeline.storage import Store
from tests.conftest import bulkembed, write_corpus

SECRET = "hunter2-planted-secret"


@pytest.mark.parametrize("key", ["source", "output"])
@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"https://user:{SECRET}@host/x.parquet",
        f"https://host/x.parquet?X-Amz-Signature={SECRET}",
        f"https://host/x.parquet?a=b&sig={SECRET}",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(key: str, uri: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: holds credentials") as caught:
        load(None, {"source": "in", "output": "out", "model": "m"} | {key: uri})
    assert SECRET not in str(caught.value)


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
