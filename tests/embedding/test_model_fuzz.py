"""Model files with anything in them: a description, or one clear line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError
from bulkembed.text.tokenizer import Tokenizer
from scripts.samples.twin_files import WEIGHTS_OF_NOTHING

FILES = (
    *("config.json", "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json"),
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 70) | st.sampled_from([0.5, 1e400, 1e30, "", "x", "64", "\x00", "../..", "\ud83d\ude00"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=4
)


@pytest.fixture(scope="module")
def small(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of MiniLM without its weights, with a vocabulary that loads at once."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors", "vocab.txt", "*.md"))
    (folder / "model.safetensors").write_bytes(WEIGHTS_OF_NOTHING)
    rules = json.loads((folder / "tokenizer.json").read_text())
    kept = {token: number for token, number in rules["model"]["vocab"].items() if number < 200}
    (folder / "tokenizer.json").write_text(json.dumps(rules | {"model": rules["model"] | {"vocab": kept}}))
    return folder


def described(folder: Path) -> str:
    try:
        model = model_files.describe(str(folder), None)
        Tokenizer(str(folder / "tokenizer.json"), model.max_tokens, model.end_token).encode(["a text"])
    except ModelError as error:
        return str(error)
    return ""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a JSON value, but for the single tokens of a vocabulary."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, inner in entries if key != "vocab" for place in places(inner, (*path, key))]


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = with_value(value[path[0]], path[1:], new)
    return copy


def test_the_files_are_good_before_they_are_changed(small: Path) -> None:
    assert described(small) == ""


@given(data=st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
def test_any_value_anywhere_is_a_description_or_one_line(small: Path, data: st.DataObject) -> None:
    path = small / data.draw(st.sampled_from(FILES))
    before = path.read_bytes() if path.exists() else None
    values = json.loads(before) if before else {}
    place = data.draw(st.sampled_from(places(values)))
    try:
        path.write_text(json.dumps(with_value(values, place, data.draw(VALUES))))
        line = described(small)
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    assert "\n" not in line
    assert not line or str(small) in line


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 3000, b'{"a": NaN}', b"null", b"7", b'{"": ""}'])
def test_a_file_of_anything_else_is_one_line(small: Path, name: str, content: bytes) -> None:
    path = small / name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    line = described(small)
    path.unlink() if before is None else path.write_bytes(before)
    assert "\n" not in line
    assert str(small) in line or (not line and content == b'{"": ""}')
