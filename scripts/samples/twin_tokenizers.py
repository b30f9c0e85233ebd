"""Small tokenizers of each kind that embedding models have, and the settings beside them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from scripts.samples import random_qwen3

VOCABULARY = 900
BERT_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA_TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
GEMMA_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>", "mask_token": "<mask>"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}

Made = tuple[Tokenizer, dict[str, Any]]


@cache
def corpus() -> tuple[str, ...]:
    """A part of Python's own documentation, and words of other scripts."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return (*(topics[name] for name in sorted(topics)[:12]), "東京は日本の首都です。 Москва зимой. القاهرة Zürich नमस्ते")


def surrounded(tokenizer: Tokenizer, before: str, after: str) -> Tokenizer:
    special = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((before, after)) if token]
    single = " ".join(part for part in (before, "$A", after) if part)
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=f"{single} $B {after}".strip(), special_tokens=special)
    return tokenizer


def special(tokens: dict[str, str]) -> list[Any]:
    return [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(tokens.values())]


def wordpiece(*, lower: bool, tokens: dict[str, str] = BERT_TOKENS, kind: str = "BertTokenizer") -> Made:
    made = Tokenizer(models.WordPiece(unk_token=tokens["unk_token"]))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        corpus(), trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special(tokens), show_progress=False)
    )
    before, after = tokens.get("cls_token", tokens.get("bos_token", "")), tokens.get("sep_token", tokens.get("eos_token", ""))
    settings = {"tokenizer_class": kind, "do_lower_case": lower, "tokenize_chinese_chars": True, "strip_accents": None}
    return surrounded(made, before, after), {**settings, **tokens, "model_max_length": 512}


def unigram() -> Made:
    """As XLM-RoBERTa's."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        unk_token="<unk>",  # noqa: S106
        special_tokens=special(ROBERTA_TOKENS),
        show_progress=False,
    )
    made.train_from_iterator(corpus(), trainer)
    tokens = ROBERTA_TOKENS | {"cls_token": "<s>", "sep_token": "</s>"}
    return surrounded(made, "<s>", "</s>"), {"tokenizer_class": "XLMRobertaTokenizer", **tokens, "model_max_length": 8192}


def byte_level(tokens: dict[str, str], before: str, after: str, settings: dict[str, Any]) -> Made:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special(tokens), initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(corpus(), trainer)
    return surrounded(made, before, after), {**tokens, "model_max_length": 32_768, **settings}


def gemma() -> Made:
    """It looks at no part of a text on its own."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=False))  # noqa: S106
    made.normalizer, made.pre_tokenizer = normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split("\u2581", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special(GEMMA_TOKENS), show_progress=False)
    made.train_from_iterator(corpus(), trainer)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return surrounded(made, "<bos>", "<eos>"), {
        **FAST,
        **GEMMA_TOKENS,
        "add_bos_token": True,
        "add_eos_token": True,
        "model_max_length": 2048,
    }


def qwen(*, appends: bool) -> Made:
    end = random_qwen3.END
    tokens = {"eos_token": end, "pad_token": end}
    return byte_level(tokens, "", end if appends else "", {**FAST, "padding_side": "left", "model_max_length": 131_072})


KINDS: dict[str, Callable[[], Made]] = {
    "wordpiece": lambda: wordpiece(lower=True),
    "wordpiece-cased": lambda: wordpiece(lower=False),
    "mpnet": lambda: wordpiece(lower=True, tokens=ROBERTA_TOKENS | {"unk_token": "[UNK]"}, kind="MPNetTokenizer"),
    "unigram": unigram,
    "roberta": lambda: byte_level(ROBERTA_TOKENS, "<s>", "</s>", {**FAST, "model_max_length": 512}),
    "modernbert": lambda: byte_level(BERT_TOKENS, "[CLS]", "[SEP]", {**FAST, "model_max_length": 8192}),
    "mistral": lambda: byte_level(ROBERTA_TOKENS, "<s>", "</s>", {**FAST, "model_max_length": 32_768, "add_bos_token": True}),
    "gemma": gemma,
    "qwen": lambda: qwen(appends=True),
    "qwen-bare": lambda: qwen(appends=False),
}
