"""Weights that are not whole, or that libraries read in different ways, are refused while a run is planned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"
Edit = Callable[[Path], object]


@pytest.fixture
def folder(qwen: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "model"))


def written(name: str, text: str | bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def copied(name: str) -> Edit:
    return lambda folder: shutil.copy(folder / WEIGHTS, folder / name)


def indexed(name: str) -> Edit:
    return written(INDEX, json.dumps({"weight_map": {"a": name}}))


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ([written("adapter_config.json", "{}")], "adapter_config.json: an adapter, which sentence-transformers adds"),
        ([copied("adapter_model.safetensors"), indexed(WEIGHTS)], "adapter_model.safetensors: an adapter"),
        ([copied("model.fp16.safetensors")], "several sets of weights (model.fp16.safetensors, model.safetensors)"),
        ([copied("a.safetensors"), indexed("a.safetensors")], "holds weights twice"),
        ([written(INDEX, "{}")], f"{INDEX}: lists no weights"),
        ([indexed("../model/model.safetensors")], "missing (model.safetensors.index.json lists it)"),
        ([written(WEIGHTS, POINTER)], f"{WEIGHTS}: a pointer of Git LFS"),
        ([written("tokenizer.json", POINTER)], "tokenizer.json: a pointer of Git LFS"),
        ([written(WEIGHTS, "")], f"{WEIGHTS}: not a safetensors file"),
        ([written(WEIGHTS, b"\xff" * 99)], f"{WEIGHTS}: not a safetensors file"),
        ([lambda folder: cut(folder / WEIGHTS)], "but its header tells of"),
        ([lambda folder: (folder / "tokenizer.json").unlink()], "tokenizer.json: missing; save the tokenizer again"),
    ],
)
def test_weights_of_which_some_would_be_skipped_or_cannot_be_read(folder: Path, edits: list[Edit], line: str) -> None:
    for edit in edits:
        edit(folder)
    with pytest.raises(ModelError) as caught:
        model_files.describe(str(folder), None)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_an_index_of_the_one_file_and_files_that_it_does_not_list_are_no_other_weights(folder: Path) -> None:
    indexed(WEIGHTS)(folder)
    copied("consolidated.safetensors")(folder)
    copied("pytorch_model.bin")(folder)
    assert model_files.describe(str(folder), None).width == 64


def test_a_pattern_that_transformers_would_put_in_place_of_the_tokenizers_own(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fix_mistral_regex": True, "transformers_version": "5.0.0"}))
    with pytest.raises(ModelError, match=r"fix_mistral_regex is true, but tokenizer\.json does the opposite"):
        model_files.describe(str(folder), None)
