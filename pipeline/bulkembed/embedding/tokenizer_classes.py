"""The tokenizers that transformers builds anew by their class, from tokenizer.json's vocabulary and the names of special tokens.

It takes little else from tokenizer.json. What that says must therefore be what the class makes: else sentence-transformers makes other
tokens of a text. Seen in transformers 5.19. A class that is not listed, such as PreTrainedTokenizerFast, takes tokenizer.json as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bulkembed.embedding.settings_file import Settings
from bulkembed.errors import ModelError


@dataclass(frozen=True)
class Built:
    """What a class makes."""

    model: str  # the type of tokenizer.json's model
    before: tuple[str, str] = ("", "")  # the name of the token before every text, and the token itself where no file names it
    after: tuple[str, str] = ("", "")  # and behind it
    normalizer: str = ""
    pre_tokenizer: str = ""
    unknown: str = ""  # the unknown token where no file names it, if the class replaces that of tokenizer.json


BERT = Built("WordPiece", ("cls_token", "[CLS]"), ("sep_token", "[SEP]"), "BertNormalizer", "BertPreTokenizer", "[UNK]")
CLASSES = {
    "BertTokenizer": BERT,
    "MPNetTokenizer": Built("WordPiece", ("cls_token", "<s>"), ("sep_token", "</s>"), "BertNormalizer", "BertPreTokenizer"),
    "XLMRobertaTokenizer": Built("Unigram", ("bos_token", "<s>"), ("eos_token", "</s>")),
    "T5Tokenizer": Built("Unigram"),
    **dict.fromkeys(("RobertaTokenizer", "LlamaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer"), Built("BPE")),
}


def require_same_class(settings: Settings, special: Settings, rules: Settings) -> None:
    """Raises ModelError where the class that a folder names makes other tokens than tokenizer.json. `special`: special_tokens_map.json."""
    name = (settings.text("tokenizer_class") or "").removesuffix("Fast")
    built = CLASSES.get(name)
    if built is None:
        return

    def stated(token: tuple[str, str]) -> str:
        return settings.token(token[0]) or special.token(token[0]) or token[1]

    pairs = [("the model", built.model, rules.table("model").text("type") or built.model)]
    if built.before[0]:
        before, after = surrounding(rules.table("post_processor"))
        pairs += [("the first token", stated(built.before), before), ("the last token", stated(built.after), after)]
    if built.unknown:
        pairs += [("the unknown token", stated(("unk_token", built.unknown)), rules.table("model").text("unk_token") or "")]
    for part in ("normalizer", "pre_tokenizer"):
        wanted = getattr(built, part)
        pairs += [(f"the {part}", wanted, rules.table(part).text("type") or "none")] if wanted else []
    for what, wanted, found in pairs:
        if found != wanted:
            raise ModelError(
                f"{settings.place}: {what} of {name} is {wanted!r}, and that of tokenizer.json is {found!r}; "
                "save the tokenizer again with transformers, so that its files agree"
            )


def surrounding(processor: Settings) -> tuple[str, str]:
    """The tokens that a post-processor puts before and behind every text; empty where it puts none."""
    match processor.text("type"):
        case "BertProcessing" | "RobertaProcessing":
            return first_text(processor.items("cls")), first_text(processor.items("sep"))
        case "TemplateProcessing":
            parts = [template_token(part) for part in processor.items("single")]
            return (parts[0], parts[-1]) if parts else ("", "")
    inner = [Settings(processor.place, each) for each in processor.items("processors") if isinstance(each, dict)]
    return next((found for found in map(surrounding, inner) if found != ("", "")), ("", ""))


def first_text(values: list[Any]) -> str:
    return str(values[0]) if values else ""


def template_token(part: Any) -> str:
    """The special token of a part of a template; empty for the text."""
    token = part.get("SpecialToken") if isinstance(part, dict) else None
    return str(token.get("id", "")) if isinstance(token, dict) else ""
