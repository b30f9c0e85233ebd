import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from bulkembed.errors import ModelError
from bulkembed.text.tokenizer import Tokenizer

END = "<|endoftext|>"


@cache
def loaded(path: str, limit: int, end_token: str | None) -> Tokenizer:
    return Tokenizer(path, limit, end_token)


@cache
def reference_of(path: str) -> RustTokenizer:
    return RustTokenizer.from_file(path)


def path_of(model: str) -> str:
    return str(Path(model) / "tokenizer.json")


@given(text=st.text(max_size=400), limit=st.integers(3, 40))
@settings(deadline=None)
def test_qwen_ids_are_those_of_the_tokenizer_with_the_end_token_kept(qwen: str, text: str, limit: int) -> None:
    reference = reference_of(path_of(qwen))
    whole = reference.encode(text).ids
    found = loaded(path_of(qwen), limit, END).encode([text])
    wanted = whole if len(whole) <= limit else [*whole[: limit - 1], whole[-1]]
    assert found.of(0).tolist() == wanted
    assert (found.n_cut > 0).tolist() == [len(whole) > limit]
    if len(text) <= 12 * (limit - 1):  # longer texts are not tokenized whole, and the rest is estimated
        assert found.n_cut.tolist() == [max(0, len(whole) - limit)]
    assert found.of(0)[-1] == reference.token_to_id(END)


@given(text=st.text(max_size=300), limit=st.integers(3, 40))
@settings(deadline=None)
def test_bert_ids_keep_both_special_tokens(minilm: str, text: str, limit: int) -> None:
    reference = reference_of(path_of(minilm))
    reference.no_padding()
    reference.enable_truncation(limit)
    assert loaded(path_of(minilm), limit, None).encode([text]).of(0).tolist() == reference.encode(text).ids


@pytest.mark.parametrize("piece", ["word ", " ", "\n\n", "検索", "a", "🧑‍🚀", "x=1;"])
@pytest.mark.parametrize("model", ["qwen", "minilm"])
def test_cutting_characters_first_changes_no_token(model: str, piece: str, request: pytest.FixtureRequest) -> None:
    path = path_of(request.getfixturevalue(model))
    text = "begin " + piece * (60_000 // len(piece)) + " end"
    reference = RustTokenizer.from_file(path)
    reference.no_padding()
    reference.no_truncation()
    own = reference.encode(text, add_special_tokens=False).ids
    tokenizer = Tokenizer(path, 32, None)
    found = tokenizer.encode([text])
    assert found.of(0).tolist() == [*tokenizer.before, *own[: tokenizer.room], *tokenizer.after]
    assert (found.n_cut > 0).tolist() == [len(own) > tokenizer.room]
    assert found.n_cut[0] == pytest.approx(max(0, len(own) - tokenizer.room), rel=0.1)


def test_the_prompt_stands_before_every_text(qwen: str) -> None:
    tokenizer = Tokenizer(path_of(qwen), 64, END)
    assert tokenizer.encode(["shard"], "Query:").flat.tolist() == tokenizer.encode(["Query:shard"]).flat.tolist()


def test_no_texts_are_no_tokens(qwen: str) -> None:
    assert Tokenizer(path_of(qwen), 64, END).encode([]).lengths.tolist() == []


def test_a_tokenizer_that_appends_no_end_token_is_refused(qwen: str, tmp_path: Path) -> None:
    settings = json.loads(Path(path_of(qwen)).read_text())
    settings["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="appends no"):
        Tokenizer(str(tmp_path / "tokenizer.json"), 64, END)


def test_a_limit_below_the_special_tokens_is_refused(minilm: str) -> None:
    with pytest.raises(ModelError, match="no room"):
        Tokenizer(path_of(minilm), 2, None)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a usable tokenizer"):
        Tokenizer(str(tmp_path / "tokenizer.json"), 64, None)
