import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError


@pytest.fixture
def folder(qwen: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "Qwen3-Embedding-copy"))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_qwen3_embedding_works_by_its_name(qwen: str) -> None:
    found = model_files.describe(qwen, None)
    assert (found.pooling, found.width, found.max_tokens, found.min_trained_dim) == ("last", 64, 32_768, 32)
    assert found.end_token == "<|endoftext|>"
    assert found.document_prompt == ""
    assert found.query_prompt == "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def test_minilm_is_read_from_its_sentence_transformers_files(minilm: str) -> None:
    found = model_files.describe(minilm, None)
    assert (found.pooling, found.width, found.max_tokens, found.min_trained_dim) == ("mean", 384, 256, None)


def test_the_digest_is_of_the_contents_not_of_the_place(qwen: str, folder: Path) -> None:
    assert model_files.describe(str(folder), None).digest == model_files.describe(qwen, None).digest
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert model_files.describe(str(folder), None).digest != model_files.describe(qwen, None).digest


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.rsplit(".", 1)[-1]):
        model_files.describe(str(folder), None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[]"),
        ("config.json", '{"d_model": 64, "max_position_embeddings": 64}'),
        ("modules.json", "null"),
        ("1_Pooling/config.json", "[]"),
        ("config_sentence_transformers.json", '{"prompts": "query"}'),
        ("model.safetensors.index.json", "[]"),
    ],
)
def test_settings_of_another_shape_are_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=f"model: {folder}: its JSON files do not say what they must: [^\n]*$"):
        model_files.describe(str(folder), None)


def test_links_that_lead_nowhere_are_named_and_folders_are_no_files(folder: Path) -> None:
    before = model_files.describe(str(folder), None).digest
    (folder / "results.json").mkdir()
    assert model_files.describe(str(folder), None).digest == before
    (folder / "more.safetensors").symlink_to("/no/such/file")
    with pytest.raises(ModelError, match=r"more\.safetensors: cannot be read: No such file"):
        model_files.describe(str(folder), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_mode_lasttoken": False}, "not supported"),
        ({"pooling_mode_lasttoken": False, "pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}, "read at its last token"),
        ({"pooling_mode_mean_tokens": True}, "not supported"),
        ({"include_prompt": False}, "include_prompt"),
    ],
)
def test_pooling_is_never_guessed(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder / "1_Pooling" / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        model_files.describe(str(folder), None)


def test_an_unknown_module_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="Dense"):
        model_files.describe(str(folder), None)


@pytest.mark.parametrize(("name", "message"), [("./no/such", "neither a folder nor a hub name"), ("plain", "neither a folder")])
def test_a_name_that_is_no_model(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_files.describe(name, None)


def test_a_folder_has_no_revisions(qwen: str) -> None:
    with pytest.raises(ModelError, match="revision"):
        model_files.describe(qwen, "main")
