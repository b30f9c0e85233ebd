"""The settings beside a model's tokenizer.json, which decides: each is the same there, or harmless, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bulkembed.embedding.settings_file import ABSENT, Settings, read_settings, settings_if_there
from bulkembed.embedding.tokenizer_classes import require_same_class
from bulkembed.errors import ModelError

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
ADDED_AROUND = {"add_bos_token": "bos_token", "add_eos_token": "eos_token"}
COMPARED = {
    *("added_tokens_decoder", "add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars"),
    *("truncation_side", "split_special_tokens", "fix_mistral_regex", "model_max_length", "max_len", *ADDED_AROUND, *TOKEN_LISTS),
}
CODE = "auto_map"  # names the tokenizer's own code: see model_files.describe
MISTRAL_WORDS = "p{Lu}"  # in the pattern that fix_mistral_regex of transformers puts in place of tokenizer.json's
# They say how tokenizer.json was made, how ids become text again, how texts are padded or chats written. No id of a text depends on them.
HARMLESS = {
    *("backend", "chat_template", "errors"),
    *("clean_up_tokenization_spaces", "do_basic_tokenize", "fast_tokenizer_files", "from_slow", "full_tokenizer_file"),
    *("init_inputs", "is_local", "legacy", "local_files_only", "max_length", "merges_file", "model_input_names"),
    *("name_or_path", "never_split", "pad_to_multiple_of", "pad_token_id", "pad_token_type_id"),
    *("padding", "padding_side", "processor_class", "sp_model_kwargs", "spaces_between_special_tokens", "stride"),
    *("special_tokens_map_file", "tokenizer_class", "tokenizer_file", "trim_offsets", "truncation", "truncation_strategy", "use_fast"),
    *("use_default_system_prompt", "verbose", "vocab_file", "vocab_size", "return_token_type_ids"),
    *("transformers_version", "device_map", "torch_dtype", "dtype", "trust_remote_code", "revision"),
}


def require_obeyed(folder: Path) -> None:
    """Raises ModelError naming the first setting beside tokenizer.json that the tokenizer does not have."""
    rules = read_settings(folder / "tokenizer.json")
    settings = settings_if_there(folder / TOKENIZER_CONFIG)
    require_steady(rules)
    settings.refuse_others({*COMPARED, *HARMLESS, CODE, *special_names(settings)})
    settings.require_only("truncation_side", ["right"], "long texts would lose their beginning")
    settings.require_only("split_special_tokens", [False], "special tokens in a text would be cut up")
    require_same_rules(settings, rules)
    if settings.flag("fix_mistral_regex") and MISTRAL_WORDS not in str(rules.values.get("pre_tokenizer")):
        require_same(settings, "fix_mistral_regex", actual=False)
    special = settings_if_there(folder / "special_tokens_map.json")
    special.refuse_others({*TOKEN_LISTS, *special_names(special)})
    known = vocabulary(rules)
    for source in (settings, special):
        require_known_tokens(source, known)
    require_same_ids(settings, settings_if_there(folder / "added_tokens.json"), known)
    require_same_class(settings, special, rules)


def names_code(folder: Path) -> bool:
    """Whether the tokenizer has code of its own, which may make other tokens of a text than tokenizer.json."""
    return settings_if_there(folder / TOKENIZER_CONFIG).values.get(CODE) not in ABSENT


def require_steady(rules: Settings) -> None:
    rules.table("truncation").require_only("direction", ["Right"], "long texts would lose their beginning")
    dropout = rules.table("model").values.get("dropout")
    if dropout not in (None, 0, 0.0):
        raise ModelError(f"{rules.place}: model: dropout is {dropout}: a text would have other tokens each time")


def lower_cases(normalizer: Settings) -> bool:
    """Whether a tokenizer makes all letters small."""
    nested = [Settings(normalizer.place, value) for value in normalizer.items("normalizers") if isinstance(value, dict)]
    kind = normalizer.text("type")
    return kind == "Lowercase" or (kind == "BertNormalizer" and normalizer.flag("lowercase") is not False) or any(map(lower_cases, nested))


def prefixes_space(pre_tokenizer: Settings) -> bool | None:
    """Whether a tokenizer puts a space before every text. None where its kind does not know such a choice."""
    match pre_tokenizer.text("type"):
        case "ByteLevel":
            return pre_tokenizer.flag("add_prefix_space") is not False
        case "Metaspace":
            return pre_tokenizer.text("prepend_scheme") != "never"
    nested = [Settings(pre_tokenizer.place, value) for value in pre_tokenizer.items("pretokenizers") if isinstance(value, dict)]
    return next((found for found in map(prefixes_space, nested) if found is not None), None)


def require_same_rules(settings: Settings, rules: Settings) -> None:
    """The settings from which transformers can make rules of tokenizer.json anew must say what stands there."""
    normalizer = rules.table("normalizer")
    pairs = [("do_lower_case", lower_cases(normalizer))]
    if normalizer.text("type") == "BertNormalizer":
        pairs += [("tokenize_chinese_chars", normalizer.flag("handle_chinese_chars") is not False)]
        if settings.flag("strip_accents") is not None:
            stripped = normalizer.flag("strip_accents")
            pairs += [("strip_accents", lower_cases(normalizer) if stripped is None else stripped)]
    prefixed = prefixes_space(rules.table("pre_tokenizer"))
    pairs += [] if prefixed is None else [("add_prefix_space", prefixed)]
    for name, actual in pairs:
        require_same(settings, name, actual)


def require_same(settings: Settings, name: str, actual: bool) -> None:
    stated = settings.flag(name)
    if stated not in (None, actual):
        raise ModelError(
            f"{settings.place}: {name} is {str(stated).lower()}, but tokenizer.json does the opposite; "
            "save the tokenizer again with transformers, so that its files agree"
        )


def vocabulary(rules: Settings) -> dict[str, int]:
    """The id of each token of a tokenizer.json."""
    listed: Any = rules.table("model").values.get("vocab")
    if isinstance(listed, list):
        listed = {str(entry[0]): number for number, entry in enumerate(listed) if isinstance(entry, list) and entry}
    tokens = dict(listed) if isinstance(listed, dict) else {}
    for value in rules.items("added_tokens"):
        token = Settings(f"{rules.place}: added_tokens", value if isinstance(value, dict) else {})
        tokens[token.text("content") or ""] = value["id"] if isinstance(value, dict) and "id" in value else None
    return tokens


def special_names(settings: Settings) -> list[str]:
    return [name for name in settings.values if name.endswith("_token") and name not in ADDED_AROUND]


def require_known_tokens(settings: Settings, known: dict[str, int]) -> None:
    named = [(name, settings.token(name)) for name in special_names(settings)]
    named += [(name, token) for name in TOKEN_LISTS for token in listed_tokens(settings, name)]
    for name, token in named:
        if token and token not in known:
            raise ModelError(
                f"{settings.place}: {name} {token!r} is no token of tokenizer.json; save the tokenizer with transformers again"
            )


def listed_tokens(settings: Settings, name: str) -> Iterator[str]:
    value = settings.values.get(name)
    values = list(value.values()) if isinstance(value, dict) else settings.items(name)
    for number, token in enumerate(values):
        yield Settings(f"{settings.place}: {name}", {str(number): token}).token(str(number)) or ""


def require_same_ids(settings: Settings, added: Settings, known: dict[str, int]) -> None:
    """Tokens that were added to the vocabulary must have the same ids in tokenizer.json."""
    decoder = settings.table("added_tokens_decoder")
    stated = [(decoder.place, decoder.token(number), number) for number in decoder.values]
    stated += [(added.place, token, str(number)) for token, number in added.values.items()]
    for place, token, number in stated:
        if token not in ABSENT and str(known.get(str(token))) != number:
            raise ModelError(f"{place}: {token!r} has the id {number[:20]}, but tokenizer.json has {known.get(str(token))}")


def require_appended(settings: Settings, before: str, after: str) -> None:
    """`before`, `after`: the first and the last token that tokenizer.json gives to every text."""
    for (flag, name), token in zip(ADDED_AROUND.items(), (before, after), strict=True):
        if settings.flag(flag) and settings.token(name) not in (None, token):
            raise ModelError(
                f"{settings.place}: {flag} is true, but tokenizer.json adds no {settings.token(name)!r} to a text; "
                "save the tokenizer again with transformers, so that its files agree"
            )
