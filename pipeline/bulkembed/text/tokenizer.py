"""Texts -> token ids. Every truncation keeps the model's special tokens.

Tokenizing time grows with the whole text, even when nearly all of its tokens are dropped. Long texts are therefore cut before they are
tokenized, at white space: the tokens of a word depend on the whole word. WordPiece makes one unknown token of a word of more than 100
characters, and Unigram weighs all ways to cut a word up. Where no word ends for a long way, as in much Chinese, the text is cut
all the same: 8 million characters would take 19 s and 3.5 GB.

A cut is safe when the remaining text still has clearly more tokens than the limit. Where it has not (a run of spaces can be one token),
the cut is moved to twice the distance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as RustTokenizer

from bulkembed.errors import ModelError
from bulkembed.records import Tokens

CHARACTERS_PER_TOKEN = 12  # well above the mean of any language, so that a second cut is rare
MARGIN_TOKENS = 16  # a cut can change the last few tokens before it: a special token that holds a space would be cut in two
MAX_WORD_CHARACTERS = 50_000  # behind the place of a cut: so far away, a cut changes no token that is kept
BATCH_TEXTS = 256  # an encoding holds far more than token ids, so that only few are kept in memory at a time
PROBE_TEXT = "a"  # shows which special tokens surround a text
# Where every tokenizer ends a word: between a letter or digit and a space. Punctuation can be one token with the line break after it.
WORD_END = re.compile(r"(?<=[^\W_])(?= )")
# Where a tokenizer that splits at line breaks also ends one: before a line break, and behind one that stands alone.
LINE_END = re.compile(r"(?<=[^\W_])(?=[ \n])|(?<=\S\n)(?=\S)")


class Tokenizer:
    """A model's tokenizer.json with a limit of `max_tokens` a text, special tokens included.

    `end_token`: the token that must end every document, or None. Raises ModelError where the tokenizer does not append it."""

    def __init__(self, path: str, max_tokens: int, end_token: str | None) -> None:
        try:
            self.rust = RustTokenizer.from_file(path)
        except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exception
            raise ModelError(f"{path}: not a usable tokenizer.json: {error}") from None
        self.rust.no_padding()
        self.rust.no_truncation()
        self.before, self.after = self._special_ids(path)
        self.cut_places = LINE_END if self._splits_lines() else WORD_END
        self.max_tokens = max_tokens
        self.room = max_tokens - len(self.before) - len(self.after)
        if self.room < 1:
            raise ModelError(f"max_tokens: {max_tokens} leaves no room beside the model's special tokens")
        if end_token is not None and self.after[-1:] != [self.rust.token_to_id(end_token)]:
            last = self.rust.encode(PROBE_TEXT).tokens[-1]
            raise ModelError(
                f"{path}: appends no {end_token!r} to a text (the last token of {PROBE_TEXT!r} is {last!r}), and this model's "
                "vector is read at that token; take tokenizer.json from the model's newest revision"
            )

    def _special_ids(self, path: str) -> tuple[list[int], list[int]]:
        """The special tokens that the post-processor puts before and after a text."""
        whole = self.rust.encode(PROBE_TEXT).ids
        bare = self.rust.encode(PROBE_TEXT, add_special_tokens=False).ids
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
        raise ModelError(f"{path}: its post-processor changes the tokens of the text itself")

    def _splits_lines(self) -> bool:
        """Whether the tokenizer looks at the parts around a line break on their own."""
        if self.rust.pre_tokenizer is None:
            return False
        text = f"{PROBE_TEXT}\n{PROBE_TEXT}"
        text = text if self.rust.normalizer is None else self.rust.normalizer.normalize_str(text)
        return len(self.rust.pre_tokenizer.pre_tokenize_str(text)) > 1

    def encode(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """The token ids of `prompt + text` for each text, at most `max_tokens` of them."""
        ids: list[list[int]] = []
        n_cut = np.zeros(len(texts), np.int64)
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = [prompt + text for text in texts[start : start + BATCH_TEXTS]]
            for number, (own, share) in enumerate(self._own_ids(batch), start):
                n_cut[number] = max(0, round(len(own) / share) - self.room)
                ids.append(self.before + own[: self.room] + self.after)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Tokens(np.fromiter(chain.from_iterable(ids), np.int32, int(offsets[-1])), offsets, n_cut)

    def count(self, text: str) -> int:
        """How many tokens a text has, without special tokens."""
        return len(self.own_ids(text))

    def own_ids(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        ids: list[int] = self.rust.encode(text, add_special_tokens=False).ids
        return ids

    def character_spans(self, text: str) -> npt.NDArray[np.int64]:
        """(tokens, 2): the characters [start, stop) of each token in the text, without special tokens."""
        offsets = self.rust.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, np.int64).reshape(-1, 2)

    def _own_ids(self, texts: list[str]) -> Iterator[tuple[list[int], float]]:
        """For each text: its token ids without special tokens, and the share of its characters that they stand for.

        A long text gives the ids of a beginning that has more than `room` tokens."""
        characters = self.room * CHARACTERS_PER_TOKEN
        cuts = [self._cut(text, characters) for text in texts]
        encodings = self.rust.encode_batch_fast([text[:cut] for text, cut in zip(texts, cuts, strict=True)], add_special_tokens=False)
        for text, first_cut, encoding in zip(texts, cuts, encodings, strict=True):
            ids, cut = encoding.ids, first_cut
            while len(text) > cut and len(ids) < self.room + MARGIN_TOKENS:
                cut = self._cut(text, 2 * cut)
                ids = self.rust.encode(text[:cut], add_special_tokens=False).ids
            yield ids, cut / len(text) if text else 1.0

    def _cut(self, text: str, characters: int) -> int:
        """The first place behind `characters` where a word of the text ends, but at most MAX_WORD_CHARACTERS behind it."""
        last = min(len(text), characters + MAX_WORD_CHARACTERS)
        place = self.cut_places.search(text, characters, last + 1)
        return place.start() if place is not None else last
