"""What an actor loads is what the plan described; nothing of another node's model or version is published."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from bulkembed import __version__
from bulkembed.cluster import ray_mapper, worker
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import loading, model_files, model_identity
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.embedding.weight_files import WEIGHT_INDEX as INDEX
from bulkembed.errors import BulkembedError, ConfigError, EngineError, ModelError
from bulkembed.package_files import Package, installed
from bulkembed.records import LostAttempt, Model
from bulkembed.runs.job import load_tokenizer
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish
from tests.support.corpora import write_corpus
from tests.support.runs import ray_of_the_session, simulated

HOST = re.escape(socket.gethostname())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path, qwen: str) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "Qwen3-Embedding-copy"))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "model.safetensors"}}'), INDEX),
        (lambda folder: (folder / "config_sentence_transformers.json").unlink(), "config_sentence_transformers.json"),
        (lambda folder: flip(folder / "tokenizer.json"), "tokenizer.json"),
        (lambda folder: flip(folder / "1_Pooling" / "config.json"), "1_Pooling/config.json"),
        (lambda folder: (folder / "modeling.py").write_text("x = 2"), "modeling.py"),
    ],
)
def test_another_file_than_was_described_is_refused(
    folder: Path, change: Callable[[Path], object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Model"}}))
    described = model_files.describe(str(folder), None)
    change(folder)

    def load(path: str, described: Model, max_tokens: int, engine: EngineConfig) -> Embedder:
        return SimulatedEmbedder(described.width, 1e9)  # kind vllm, so that the weights count; what runs them does not

    monkeypatch.setattr(loading, "build_embedder", load)
    with pytest.raises(ModelError, match=f"model: {HOST} has another {re.escape(name)} of {folder}"):
        loading.load(described, 64, EngineConfig(kind="vllm"))


def test_two_actors_with_other_weights_of_one_hub_model_are_told_apart() -> None:
    with pytest.raises(ModelError, match=r"model: b has another w.safetensors of m \(SHA-256 2.*\) than a has \(SHA-256 1"):
        model_identity.require_same("m", {"w.safetensors": "1"}, "a has", {"w.safetensors": "2"}, "b")
    model_identity.require_same("m", {"w.safetensors": "1"}, "a has", {"w.safetensors": "1"}, "b")


def test_the_tokenizer_of_another_node_is_refused(folder: Path) -> None:
    described = model_files.describe(str(folder), None)
    flip(folder / "tokenizer.json")
    with pytest.raises(ModelError, match=rf"model: {HOST} has another tokenizer\.json"):
        load_tokenizer(described, 64)


class Settings(BaseModel):
    """As vLLM's own, which refuses a model in a validator."""

    model: str

    @field_validator("model")
    @classmethod
    def refuse(cls, value: str) -> str:
        raise ValueError(value)


def error_of(text: str, kind: type[Exception] | None = None) -> Exception:
    try:
        Settings(model=text)
    except ValidationError as error:
        return error if kind is None else kind(text)
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (error_of("The repository m contains custom code.\nPlease pass `trust_remote_code=True`"), "vLLM asks for the model's own code"),
        (error_of("m has no tokenizer\nand much more\n" * 99), "ValidationError: Value error, m has no tokenizer$"),
        (error_of("no kernel\n\ntrace", NotImplementedError), "NotImplementedError: no kernel$"),
        (error_of("x" * 5000, KeyError), f"KeyError: 'x{{{loading.MAX_REASON - 1}}}$"),
        (RuntimeError(), "RuntimeError$"),
    ],
    ids=repr,
)
def test_an_engine_that_cannot_load_says_so_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str) -> None:
    def fail(*_: object) -> Embedder:
        raise error

    described = model_files.describe(str(folder), None)
    monkeypatch.setattr(loading, "build_embedder", fail)
    with pytest.raises(BulkembedError, match=f"^model: {folder} could not be loaded: {line}") as caught:
        loading.load(described, 64, EngineConfig(kind="vllm"))
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, EngineError) == isinstance(error, RuntimeError) or isinstance(error, NotImplementedError)


@pytest.mark.usefixtures("ray_session")
def test_nothing_of_a_node_with_another_model_is_published(tmp_path: Path, folder: Path) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, planned = open_job(simulated(tmp_path / "in", tmp_path / "out", str(folder)))
    flip(folder / "config.json")
    with pytest.raises(ModelError, match=f"{HOST} has another config.json"), ray_of_the_session(job) as executor:
        finish(job, planned, lambda progress: None, executor)
    assert not list(tmp_path.glob("out/data/*/*"))


@pytest.mark.parametrize(
    ("package", "found"),
    [
        (Package("0.0.9", installed().digest), rf"version {re.escape(__version__)}, the driver 0\.0\.9"),
        (Package(__version__, "0"), rf"other files of version {re.escape(__version__)} than the driver \(\w{{16}}, not 0\)"),
    ],
)
def test_another_bulkembed_loads_maps_and_publishes_nothing(tmp_path: Path, qwen: str, package: Package, found: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, planned = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    other = replace(job, package=package)
    said = rf"bulkembed: {HOST} has {found}; nothing of it is published; install the same version on every node$"
    problem = worker.Worker().load_model(other, None)
    assert re.match(said, str(problem))
    shard = planned.pending[0]
    for outcome in (worker.prepare(shard, other, None)[0], worker.give_up(shard, other, None, "never given up")):
        assert isinstance(outcome, LostAttempt)
        assert re.match(said, outcome.reason)
    with pytest.raises(ConfigError, match=said):
        ray_mapper.call(package, len, "")
    assert not list(tmp_path.glob("out/data/*/*"))
