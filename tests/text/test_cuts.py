"""Long texts are cut before they are tokenized. For every kind of tokenizer the tokens are those of the whole text."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as RustTokenizer

from bulkembed.text import tokenizer
from bulkembed.text.tokenizer import Tokenizer

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "have",
    "from",
    "other",
]
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def corpus() -> list[str]:
    chance = random.Random(0)
    lines = [" ".join(chance.choices(WORDS, k=12)) + chance.choice([".", "!\n", " =====\n\n", "\n"]) for _ in range(300)]
    hashes = ["".join(chance.choices("0123456789abcdef", k=40)) for _ in range(300)]
    return [*lines, *hashes, "検索 は速い。\n東京 は 日本の首都です。", "e\u0301t\u00e9 na\u00efve \u00a0 x"]


def word_piece() -> RustTokenizer:
    made = RustTokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False))
    return made


def byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer) -> RustTokenizer:
    made = RustTokenizer(models.BPE())
    made.normalizer, made.pre_tokenizer = normalizers.NFC(), pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    return made


def unigram(pre_tokenizer: pre_tokenizers.PreTokenizer) -> RustTokenizer:
    made = RustTokenizer(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizer
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator(corpus(), trainer)
    return made


def whole_text_bpe() -> RustTokenizer:
    """As Gemma's: no part of a text is looked at on its own."""
    parts = RustTokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    parts.normalizer, parts.pre_tokenizer = normalizers.Replace(" ", "\u2581"), pre_tokenizers.Metaspace(prepend_scheme="never")
    parts.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False))
    parts.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return parts


KINDS: dict[str, Callable[[], RustTokenizer]] = {
    "WordPiece": word_piece,
    "byte-level BPE": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "BPE as Qwen's": lambda: byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    ),
    "BPE of the whole text": whole_text_bpe,
    "Unigram": lambda: unigram(pre_tokenizers.Metaspace()),
    "Unigram of words": lambda: unigram(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
}

SPANS = st.one_of(
    st.sampled_from(WORDS),
    st.text(alphabet="0123456789abcdef", min_size=1, max_size=300),
    st.sampled_from([" ", "  ", "\n", "\n\n", " \n", "\t", "\u00a0", "\u3000", "\r\n", ". ", "!\n", "=" * 70, "。\n", "\u0301", "_"]),
    st.text(max_size=6),
)


@pytest.fixture(scope="module", params=KINDS)
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, RustTokenizer]:
    path = Path(tmp_path_factory.mktemp("cuts") / "tokenizer.json")
    KINDS[request.param]().save(str(path))
    return Tokenizer(str(path), 8, None), RustTokenizer.from_file(str(path))


@given(spans=st.lists(SPANS, min_size=20, max_size=60))
@settings(deadline=None, max_examples=60)
def test_the_tokens_of_a_cut_text_are_those_of_the_whole(tokenizers: tuple[Tokenizer, RustTokenizer], spans: list[str]) -> None:
    ours, whole = tokenizers
    text = "".join(spans)
    ids = whole.encode(text).ids
    found = ours.encode([text])
    assert found.of(0).tolist() == ids[:8]
    assert bool(found.n_cut[0]) == (len(ids) > 8)


def test_a_long_page_of_long_hashes_keeps_its_tokens(tokenizers: tuple[Tokenizer, RustTokenizer]) -> None:
    ours, whole = tokenizers
    chance = random.Random(1)
    pages = [" ".join("".join(chance.choices("0123456789abcdef", k=chance.randrange(20, 180))) for _ in range(20)) for _ in range(100)]
    found = ours.encode(pages)
    assert [found.of(number).tolist() for number in range(len(pages))] == [whole.encode(page).ids[:8] for page in pages]


def test_most_of_a_long_text_is_not_tokenized(tokenizers: tuple[Tokenizer, RustTokenizer]) -> None:
    ours, _ = tokenizers
    text = " ".join(WORDS * 2000)
    assert len(next(iter(ours._own_ids([text])))[0]) < 200


@pytest.mark.parametrize("alphabet", ["0123456789abcdef", "検索は速東京日本の首都です"])
def test_a_long_text_without_white_space_is_cut_far_behind_the_tokens_that_are_kept(
    tokenizers: tuple[Tokenizer, RustTokenizer], alphabet: str
) -> None:
    ours, whole = tokenizers
    text = "".join(random.Random(2).choices(alphabet, k=150_000))
    assert ours.encode([text]).of(0).tolist() == whole.encode(text).ids[:8]
    assert ours._cut(text, 96) == 96 + tokenizer.MAX_WORD_CHARACTERS


def test_a_word_of_many_characters_is_tokenized_whole(minilm: str) -> None:
    path = f"{minilm}/tokenizer.json"
    ours, whole = Tokenizer(path, 8, None), RustTokenizer.from_file(path)
    whole.no_padding()
    whole.no_truncation()
    word = "ab" * 5000
    assert ours.encode([word]).of(0).tolist() == whole.encode(word).ids
