"""Models from a hub: a real one's HTTP, on loopback, and an empty cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bulkembed.embedding.model_files import describe
from bulkembed.embedding.model_identity import file_hash
from bulkembed.errors import ModelError
from bulkembed.inspection.search import dataset_model
from scripts.samples import twin_files
from scripts.samples.twin_files import WEIGHTS_OF_NOTHING
from scripts.samples.twins import TWINS
from tests.support.corpora import write_corpus
from tests.support.processes import bulkembed
from tests.support.runs import read_dataset
from tests.support.small_hub import COMMIT, TOKEN, SmallHub, small_hub
from tests.support.snapshots import some_snapshot

NAME = "small/Qwen3-Embedding-tiny"


@pytest.fixture
def hub(tmp_path: Path, qwen: str) -> Iterator[SmallHub]:
    shutil.copytree(qwen, tmp_path / "hub" / NAME)
    with small_hub(tmp_path / "hub") as served:
        yield served


def shard_weights(folder: Path) -> None:
    """Cuts model.safetensors in two files and an index, as large models have it."""
    whole = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file, at, body = f"model-{number:05}-of-00002.safetensors", 0, b""
        described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for name in part:
            start, stop = header[name]["data_offsets"]
            body += data[start:stop]
            described[name] = {**header[name], "data_offsets": [at, at + stop - start]}
            at += stop - start
            weight_map[name] = file
        head = json.dumps(described).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(head)) + head + body)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def run(tmp_path: Path, hub: SmallHub, *flags: object, model: str = NAME, **environment: str) -> tuple[int, str, str]:
    where = ("run", "--source", tmp_path / "in", "--output", tmp_path / "out", "--model", model, "--max-tokens", 64)
    ran = bulkembed(*where, "--set", "ray.num_cpus=2", *flags, **hub.environment(tmp_path / "cache"), **environment)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.parametrize(("layout", "sharded"), [("fused", False), ("split", True)])
def test_a_hub_model_is_fetched_and_runs(tmp_path: Path, hub: SmallHub, layout: str, sharded: bool) -> None:
    """With the engine that needs the weights, an empty cache, and two actors of one node."""
    rows = write_corpus(tmp_path / "in", files=2)
    if sharded:
        shard_weights(hub.root / NAME)
    code, _, errors = run(tmp_path, hub, "--set", f"ray.layout={layout}", "--set", "engine.replicas=2")
    assert code == 0, errors
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    weights = {name: count for name, count in hub.downloads.items() if name.endswith(".safetensors")}
    assert set(weights.values()) == {1}, "weights are fetched once a node"
    assert len(weights) == 1 + sharded
    assert list((tmp_path / "cache").glob(f"hub/*/snapshots/{COMMIT}/tokenizer.json"))


@pytest.mark.parametrize(
    ("kind", "model", "flags", "code", "message"),
    [
        ("broken", NAME, (), 1, f"model: {NAME} could not be fetched from the hub: .* run again when it answers"),
        ("gone", NAME, (), 1, f"model: {NAME} could not be fetched from the hub: .* run again when it answers"),
        ("gated", NAME, (), 2, f"model: {NAME} is gated on the hub: accept its conditions on its page there, and set HF_TOKEN"),
        ("private", NAME, (), 2, f"model: {NAME} is not on the hub, or private: check the name; for a private model, set HF_TOKEN"),
        ("open", "small/no-such", (), 2, "model: small/no-such is not on the hub, or private"),
        ("open", NAME, ("--revision", "v9"), 2, f"revision: {NAME} has no revision 'v9' on the hub"),
        ("open", "small/a b", (), 2, "model: small/a b is neither a folder here nor a name that the hub allows"),
        ("open", NAME, ("--revision", ""), 2, "revision: must not be empty"),
        ("no address", NAME, (), 2, "model: HF_ENDPOINT is not the address of a hub: 'hub.internal' does not begin with https://"),
    ],
)
def test_what_keeps_a_model_from_coming_is_one_line(
    tmp_path: Path, hub: SmallHub, kind: str, model: str, flags: tuple[str, ...], code: int, message: str
) -> None:
    write_corpus(tmp_path / "in", files=1)
    hub.kind = kind
    if kind == "gone":
        hub.kind, hub.endpoint = "open", "http://127.0.0.1:9"  # nobody listens there
    if kind == "no address":
        hub.kind, hub.endpoint = "open", "hub.internal"
    ended, _, errors = run(tmp_path, hub, "--dry-run", *flags, model=model)
    assert ended == code
    assert re.fullmatch(f"bulkembed: {message}.*\n", errors), errors


def test_a_cache_that_cannot_be_written_is_no_outage(tmp_path: Path, hub: SmallHub) -> None:
    (tmp_path / "file").touch()
    code, why = located(hub, tmp_path / "file" / "cache", weights=False)
    assert code == 2
    assert re.match(rf"model: {NAME} could not be kept in this node's hub cache, {tmp_path}/file/cache: .*; make room, or set HF_HOME", why)


def test_a_request_that_is_made_again_says_nothing(tmp_path: Path, hub: SmallHub) -> None:
    write_corpus(tmp_path / "in", files=1)
    hub.busy = 1
    code, _, errors = run(tmp_path, hub, "--dry-run", "--revision", COMMIT)
    assert (code, errors, hub.busy) == (0, "", 0)


def test_code_of_a_model_comes_with_it(tmp_path: Path, hub: SmallHub) -> None:
    """Only `engine.args.trust_remote_code` has it run; then it must be there."""
    (hub.root / NAME / "modeling.py").write_text("x = 1")
    assert located(hub, tmp_path / "cache", weights=False)[0] == 0
    assert hub.downloads["modeling.py"] == 1


def test_a_folder_with_the_files_of_the_hub_model_is_the_model_of_a_dataset(qwen: str) -> None:
    made_with = {"model": NAME, "revision": COMMIT, "model_digest": describe(qwen, None).digest}
    snapshot = some_snapshot(provenance=made_with)
    assert dataset_model(snapshot, qwen).name == qwen
    with pytest.raises(ModelError, match=f"{re.escape(qwen)} is not the model of this dataset: its files differ"):
        dataset_model(replace(snapshot, provenance=made_with | {"model_digest": "another"}), qwen)


def test_a_token_opens_a_private_model(tmp_path: Path, hub: SmallHub) -> None:
    write_corpus(tmp_path / "in", files=1)
    hub.kind = "private"
    code, shown, errors = run(tmp_path, hub, "--dry-run", HF_TOKEN=TOKEN)
    assert (code, errors) == (0, "")
    assert TOKEN not in shown


# Answers one question after the other: importing the hub's library takes a second.
LOCATED = """
import json, sys
from bulkembed.embedding import model_files, model_identity
from bulkembed.errors import BulkembedError

for line in sys.stdin:
    name, weights = json.loads(line)
    try:
        folder = model_files.locate(name, None, weights=weights)
        answer = [0, dict(model_identity.file_hashes(folder, weights=True)).get("model.safetensors", "")]
    except BulkembedError as error:
        answer = [error.exit_code, str(error)]
    print(json.dumps(answer), flush=True)
"""


@contextmanager
def locating(hub: SmallHub, cache: Path, **environment: str) -> Iterator[Callable[[bool], tuple[int, str]]]:
    """Locates the model, with its weights or without, in a process of its own, since the hub's library reads its settings once.

    Yields a function that returns 0 and the hash of the weights, or an exit code and why."""
    variables = os.environ | hub.environment(cache) | environment
    with subprocess.Popen(
        [sys.executable, "-c", LOCATED], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def locate(weights: bool) -> tuple[int, str]:
            questions.write(json.dumps([NAME, weights]) + "\n")
            questions.flush()
            code, text = json.loads(answers.readline())
            return code, text

        yield locate
        questions.close()


def located(hub: SmallHub, cache: Path, weights: bool, **environment: str) -> tuple[int, str]:
    with locating(hub, cache, **environment) as locate:
        return locate(weights)


def test_weights_that_do_not_come_and_weights_that_are_damaged(tmp_path: Path, hub: SmallHub) -> None:
    cache = tmp_path / "cache"
    with locating(hub, cache) as locate:
        assert locate(False) == (0, "")
        assert "model.safetensors" not in hub.downloads
        hub.kind = "broken"
        code, why = locate(True)
        assert code == 1, "an outage passes"
        assert why.startswith(f"model: {NAME} could not be fetched from the hub: ")
        assert located(hub, cache, weights=True, HF_HUB_OFFLINE="1")[0] == 2
        hub.kind = "open"
        of_the_hub = (0, file_hash(hub.root / NAME / "model.safetensors"))
        assert locate(True) == of_the_hub
        hub.kind = "broken"
        assert locate(True) == of_the_hub, "what is in the cache needs no hub"
        for name in ("config.json", "model.safetensors"):
            (blob,) = {path.resolve() for path in (cache / "hub").glob(f"*/snapshots/*/{name}")}
            whole = blob.read_bytes()
            blob.write_bytes(whole[:-2] + b" " + whole[-1:])
            code, why = locate(True)
            assert code == 2
            assert why.startswith(f"{blob}: damaged in the hub cache of ")
            blob.write_bytes(whole)
        assert locate(True) == of_the_hub


DESCRIBED = """
import json, sys
from bulkembed.embedding import model_files, model_identity
from bulkembed.errors import BulkembedError

found = []
for name, revision in json.loads(sys.argv[1]):
    try:
        model = model_files.describe(name, revision)
        found.append([model.digest, model.revision])
    except BulkembedError as error:
        found.append([error.exit_code, str(error)])
print(json.dumps(found))
"""


def described(hub: SmallHub, cache: Path, *models: tuple[str, str | None], **environment: str) -> list[tuple[str | int, str | None]]:
    """Digest and commit of each model, or an exit code and why."""
    command = [sys.executable, "-c", DESCRIBED, json.dumps(models)]
    ran = subprocess.run(command, env={**os.environ, **hub.environment(cache), **environment}, capture_output=True, text=True, check=True)
    return [tuple(each) for each in json.loads(ran.stdout)]


def committed(hub: SmallHub, number: int, name: str, content: str | None) -> str:
    """A further commit of the model in which one file is another."""
    commit = f"{number:040x}"
    hub.commits[commit] = f"small/{number}"
    shutil.copytree(hub.root / NAME, hub.root / hub.commits[commit])
    path = hub.root / hub.commits[commit] / name
    path.parent.mkdir(exist_ok=True)
    if content is None:
        flipped = bytearray(path.read_bytes())
        flipped[-1] ^= 1
        path.write_bytes(flipped)
    else:
        path.write_text(content)
    return commit


def test_a_hub_model_is_what_is_read_of_it(tmp_path: Path, hub: SmallHub, qwen: str) -> None:
    notes = ["README.md", "notes.json", "data_config.json", "onnx/config.json", "generation_config.json", "requirements.txt", "train.py"]
    read = {"tokenizer_config.json": '{"padding_side": "right"}', "model.safetensors": None, "quantize_config.json": "{}"}
    same = [committed(hub, number, name, '{"x": 1}') for number, name in enumerate(notes)]
    other = [committed(hub, number, name, content) for number, (name, content) in enumerate(read.items(), 100)]
    found = described(hub, tmp_path / "cache", (NAME, None), (qwen, None), *((NAME, commit) for commit in [*same, *other]))
    assert [commit for _, commit in found] == [COMMIT, None, *same, *other]
    digests = [digest for digest, _ in found]
    assert set(digests[: 2 + len(same)]) == {describe(qwen, None).digest}
    assert len(set(digests)) == 1 + len(other)
    assert not any(name.endswith(".safetensors") for name in hub.downloads), "the hub says the hashes of the weights"


def test_the_cache_knows_a_model_where_the_hub_does_not_answer(tmp_path: Path, hub: SmallHub, qwen: str) -> None:
    cache, digest = tmp_path / "cache", describe(qwen, None).digest
    assert described(hub, cache, (NAME, None), HF_HUB_OFFLINE="1")[0][0] == 2, "nothing is there yet"
    assert described(hub, cache, (NAME, None)) == [(digest, COMMIT)]
    for kind, environment, code, why in [
        ("broken", {}, 1, "could not be fetched from the hub: "),
        ("open", {"HF_HUB_OFFLINE": "1"}, 2, "is not whole in the hub cache of this node, and HF_HUB_OFFLINE forbids fetching it"),
    ]:
        hub.kind = kind
        ((found, line),) = described(hub, cache, (NAME, None), **environment)
        assert (found, line is not None and line.startswith(f"model: {NAME} {why}")) == (code, True), line
    assert located(hub, cache, weights=True)[0] == 0
    assert described(hub, cache, (NAME, None), HF_HUB_OFFLINE="1") == [(digest, COMMIT)]
    hub.kind = "broken"
    assert described(hub, cache, (NAME, None)) == [(digest, COMMIT)]


def test_weights_that_git_itself_holds_are_fetched_to_be_known(tmp_path: Path, hub: SmallHub, qwen: str) -> None:
    hub.large = "nothing"
    assert described(hub, tmp_path / "cache", (NAME, None)) == [(describe(qwen, None).digest, COMMIT)]


def test_a_model_without_safetensors_is_refused_before_anything_is_fetched_of_its_weights(tmp_path: Path, hub: SmallHub) -> None:
    (hub.root / NAME / "model.safetensors").rename(hub.root / NAME / "pytorch_model.bin")
    assert described(hub, tmp_path / "cache", (NAME, None)) == [
        (2, f"model: {NAME} has no *.safetensors on the hub (other weights are not loaded)")
    ]


LOADED = """
import sys
from pathlib import Path
from bulkembed.embedding import model_files, model_identity
from bulkembed.errors import ModelError

model = model_files.describe(sys.argv[1], None)
weights = Path(sys.argv[2])
weights.write_bytes(weights.read_bytes()[:-1] + b"x")  # on the hub, after the plan
folder = model_files.locate(model.name, model.revision, weights=True)
try:
    model_identity.require_described(model, dict(model_identity.file_hashes(folder, weights=True)), "this host")
except ModelError as error:
    print(error)
"""


def test_a_node_with_other_weights_than_planned_is_told_apart(tmp_path: Path, hub: SmallHub) -> None:
    command = [sys.executable, "-c", LOADED, NAME, str(hub.root / NAME / "model.safetensors")]
    ran = subprocess.run(command, env={**os.environ, **hub.environment(tmp_path / "cache")}, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"model: this host has another model.safetensors of {NAME} (SHA-256 ")


def test_a_linear_layer_comes_with_the_description_of_a_hub_model(tmp_path: Path, hub: SmallHub) -> None:
    folder = hub.root / "small" / "labse"
    twin_files.describe(folder, TWINS["labse"])
    (folder / "model.safetensors").write_bytes(WEIGHTS_OF_NOTHING)
    (hub_model, commit), local = described(hub, tmp_path / "cache", ("small/labse", None), (str(folder), None))
    assert (hub_model, commit) == (local[0], COMMIT)
    assert set(hub.downloads) >= {"2_Dense/model.safetensors"}
    assert "model.safetensors" not in hub.downloads
