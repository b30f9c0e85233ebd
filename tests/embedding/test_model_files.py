import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError

DENSE = "sentence_transformers.models.Dense"


@pytest.fixture
def folder(qwen: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "embedder"))


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(edit(values)))


def rewrite(path: Path, **changes: Any) -> None:
    change(path, lambda values: {**values, **changes})


def renamed(path: Path, names: dict[str, str]) -> None:
    change(path, lambda values: {names.get(name, name): value for name, value in values.items()})


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        model_files.describe(str(folder), None)
    return str(caught.value)


def test_qwen3_embedding_is_known_by_its_files_whatever_its_folder_is_called(qwen: str, folder: Path) -> None:
    found = model_files.describe(str(folder), None)
    assert (found.pooling, found.width, found.max_tokens, found.min_trained_dim) == ("last", 64, 32_768, 32)
    assert found.end_token == "<|endoftext|>"
    assert found.document_prompt == ""
    assert found.query_prompt == "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    assert model_files.describe(qwen, None).trained_for(32)


def test_a_folder_called_like_qwen3_embedding_is_not_one_by_that(folder: Path) -> None:
    named = folder.rename(folder.parent / "Qwen3-Embedding-0.6B")
    rewrite(named / "config_sentence_transformers.json", prompts={"query": "query: "})
    found = model_files.describe(str(named), None)
    assert (found.min_trained_dim, found.end_token) == (None, "<|endoftext|>")


@pytest.mark.parametrize(
    ("config", "dims"),
    [
        ({"is_matryoshka": True, "model_type": "qwen2"}, range(1, 65)),
        ({"is_matryoshka": True}, range(32, 65)),
        ({"is_matryoshka": True, "matryoshka_dimensions": [16, 8]}, (8, 16, 64)),
        ({"matryoshka_dimensions": [16]}, (16, 64)),
        ({"is_matryoshka": False}, (64,)),
        ({}, range(32, 65)),
    ],
)
def test_what_the_files_say_of_matryoshka_is_believed(folder: Path, config: dict[str, Any], dims: Any) -> None:
    rewrite(folder / "config.json", **config)
    found = model_files.describe(str(folder), None)
    assert [dim for dim in range(1, 65) if found.trained_for(dim)] == list(dims)


def test_minilm_is_read_from_its_sentence_transformers_files(minilm: str) -> None:
    found = model_files.describe(minilm, None)
    assert (found.pooling, found.width, found.max_tokens, found.min_trained_dim) == ("mean", 384, 256, None)


def test_the_digest_is_of_the_contents_not_of_the_place(qwen: str, folder: Path) -> None:
    assert model_files.describe(str(folder), None).digest == model_files.describe(qwen, None).digest
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert model_files.describe(str(folder), None).digest != model_files.describe(qwen, None).digest


@pytest.mark.parametrize(
    "note", ["README.md", "notes.json", "training_args.bin", "eval/results.json", "onnx/model.onnx", "1_Pooling/x.txt"]
)
def test_a_note_beside_the_weights_changes_nothing(qwen: str, folder: Path, note: str) -> None:
    (folder / note).parent.mkdir(exist_ok=True)
    (folder / note).write_text("a note")
    assert model_files.describe(str(folder), None).digest == model_files.describe(qwen, None).digest


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.rsplit(".", 1)[-1]):
        model_files.describe(str(folder), None)


@pytest.mark.parametrize(
    "names",
    [
        {
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        },
        {"hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers", "head_dim": "d_kv"},
        {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    ],
)
def test_sizes_have_the_names_of_their_architectures(qwen: str, folder: Path, names: dict[str, str]) -> None:
    before = model_files.describe(qwen, None)
    renamed(folder / "config.json", names)
    found = model_files.describe(str(folder), None)
    assert (found.width, found.max_tokens, found.cache_values) == (before.width, before.max_tokens, before.cache_values)


def test_the_sizes_of_a_model_of_several_parts_are_those_of_its_text_part(qwen: str, folder: Path) -> None:
    change(folder / "config.json", lambda values: {"model_type": "gemma3", "vision_config": {"hidden_size": 7}, "text_config": values})
    assert model_files.describe(str(folder), None).width == model_files.describe(qwen, None).width


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "[]", "config.json: expected a JSON object"),
        ("config.json", "{}", "config.json: has no hidden_size (nor n_embd, "),
        ("config.json", '{"hidden_size": "64"}', "hidden_size: expected a whole number above 0 (got '64')"),
        ("config.json", '{"hidden_size": 64, "num_attention_heads": true}', "num_attention_heads: expected a whole number"),
        ("modules.json", "null", "modules.json: expected a list of modules"),
        ("modules.json", "[{}]", "module 0: type 'None' is not supported"),
        ("1_Pooling/config.json", "[]", "1_Pooling/config.json: expected a JSON object"),
        ("config_sentence_transformers.json", '{"prompts": "query"}', "prompts: expected an object (got 'query')"),
        ("model.safetensors.index.json", "[]", "model.safetensors.index.json: expected a JSON object"),
        ("tokenizer.json", '{"model": 5}', "tokenizer.json: model: expected an object"),
    ],
)
def test_settings_of_another_shape_are_one_line(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    line = refusal(folder)
    assert message in line
    assert "\n" not in line


def test_links_that_lead_nowhere_are_named_and_folders_are_no_files(folder: Path) -> None:
    before = model_files.describe(str(folder), None).digest
    (folder / "results.json").mkdir()
    assert model_files.describe(str(folder), None).digest == before
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/no/such/file")
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read: No such file"):
        model_files.describe(str(folder), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_mode_lasttoken": False}, "not supported"),
        ({"pooling_mode_lasttoken": False, "pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}, "read at its last token"),
        ({"pooling_mode_mean_tokens": True}, "not supported"),
        ({"pooling_mode": "mean"}, "not supported"),
        ({"pooling_mode": ["lasttoken", "mean"]}, "not supported"),
        ({"include_prompt": False}, "include_prompt"),
        ({"word_embedding_dimension": 32}, "pools states of 32 components"),
        ({"pooling_weight": 2}, "pooling_weight is a setting that bulkembed does not know"),
    ],
)
def test_pooling_is_never_guessed(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder / "1_Pooling" / "config.json", **changes)
    assert message in refusal(folder)


@pytest.mark.parametrize("mode", ["lasttoken", ["lasttoken"]])
def test_newer_files_name_the_pooling(folder: Path, mode: object) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": mode}))
    assert model_files.describe(str(folder), None).pooling == "last"


def listed(*types: str, path: str = "") -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": path if not number else f"{number}_x", "type": name}
        for number, name in enumerate(types)
    ]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (listed("sentence_transformers.models.WeightedPooling"), "'sentence_transformers.models.WeightedPooling' is not supported"),
        (listed("custom_st.Transformer"), "'custom_st.Transformer' is not supported"),
        (listed("sentence_transformers.models.LSTM"), "is not supported"),
        (listed("sentence_transformers.models.Transformer"), "lists 0 Pooling modules"),
        (
            listed(
                "sentence_transformers.models.Transformer", "sentence_transformers.models.Normalize", "sentence_transformers.models.Pooling"
            ),
            "modules in the order Transformer, Normalize, Pooling",
        ),
        (
            listed("sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", path="0_Transformer"),
            "the Transformer's files lie in 0_Transformer/",
        ),
        (listed("sentence_transformers.models.Transformer", path="../else"), "path: expected the name of a folder"),
    ],
)
def test_modules_are_known_by_their_exact_types_and_places(folder: Path, modules: list[Any], message: str) -> None:
    (folder / "modules.json").write_text(json.dumps(modules))
    assert message in refusal(folder)


def test_the_types_of_newer_files_are_the_same(qwen: str, folder: Path) -> None:
    new = {
        "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    }
    change(folder / "modules.json", lambda modules: [{**module, "type": new[module["type"].rpartition(".")[2]]} for module in modules])
    assert model_files.describe(str(folder), None).pooling == model_files.describe(qwen, None).pooling


@pytest.mark.parametrize(("name", "message"), [("./no/such", "neither a folder nor a hub name"), ("plain", "neither a folder")])
def test_a_name_that_is_no_model(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_files.describe(name, None)


def test_a_folder_has_no_revisions(qwen: str) -> None:
    with pytest.raises(ModelError, match="revision"):
        model_files.describe(qwen, "main")
