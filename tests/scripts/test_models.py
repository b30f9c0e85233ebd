"""The table of docs/models.md has every twin, and says of each what its files say."""

from pathlib import Path

import pytest

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError
from scripts.samples import twin_files
from scripts.samples.model_table import DOCUMENT, MODELS, result_of, rows, stated_results
from scripts.samples.twins import TWINS


def test_the_table_has_every_model() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert list(stated_results(text)) == list(MODELS)
    assert all(text.count(f" {model},") + text.count(f" {model} |") == 1 for models in MODELS.values() for model in models)


def test_rows_are_read_as_they_are_written() -> None:
    results = dict.fromkeys(MODELS, "loads: least cosine 1.0000000, token ids equal 40 of 40")
    assert stated_results("\n".join(rows(results))) == results


def test_what_a_check_says_in_a_few_words() -> None:
    line = "  ok    {}: short   cosine min {} mean 1.0, tokens equal {}/4\n"
    output = line.format("transformers", "0.9999999", 4) + line.format("sentence-transformers", "0.9999998", 3)
    assert result_of(output, "", Path("/m"), 0) == "loads: least cosine 0.9999998, token ids equal 7 of 8"
    assert result_of("", "note\nbulkembed: /m/config.json: no\n", Path("/m"), 2) == "refused: config.json: no"


@pytest.mark.parametrize("name", TWINS)
def test_the_table_says_what_the_files_of_a_model_say(tmp_path: Path, name: str) -> None:
    twin_files.describe(tmp_path, TWINS[name])
    (tmp_path / "model.safetensors").write_bytes(twin_files.WEIGHTS_OF_NOTHING)
    stated = stated_results(DOCUMENT.read_text(encoding="utf-8"))[name]
    try:
        model_files.describe(str(tmp_path), None)
    except ModelError as error:
        assert stated == result_of("", f"bulkembed: {error}", tmp_path, 2)
