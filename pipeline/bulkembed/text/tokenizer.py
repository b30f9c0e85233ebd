"""Texts -> token ids, with the model's special tokens kept through every truncation.

Tokenizing time grows with the whole text even when nearly all of it is thrown away, so long
texts are cut first. A cut is safe when what it leaves still has clearly more tokens than the
limit; where it does not (runs of spaces can be one token), it is made twice as far out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as RustTokenizer

from bulkembed.errors import ModelError
from bulkembed.records import Tokens

CHARACTERS_PER_TOKEN = 12  # well above any language's mean, so that a second cut is rare
MARGIN_TOKENS = 16  # a cut changes how the last few characters before it are tokenized
BATCH_TEXTS = 256  # encodings hold far more than ids: few of them at a time
PROBE = "a"


class Tokenizer:
    """A model's tokenizer.json, cutting at `max_tokens` (special tokens included).

    `end_token`: what must be the last token of every document, or None. Raises ModelError where
    the tokenizer does not append it."""

    def __init__(self, path: str, max_tokens: int, end_token: str | None) -> None:
        try:
            self.rust = RustTokenizer.from_file(path)
        except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exception
            raise ModelError(f"{path}: not a usable tokenizer.json: {error}") from None
        self.rust.no_padding()
        self.rust.no_truncation()
        self.before, self.after = self._special_ids(path)
        self.max_tokens = max_tokens
        self.room = max_tokens - len(self.before) - len(self.after)
        if self.room < 1:
            raise ModelError(f"max_tokens: {max_tokens} leaves no room beside the model's special tokens")
        if end_token is not None and self.after[-1:] != [self.rust.token_to_id(end_token)]:
            last = self.rust.encode(PROBE).tokens[-1]
            raise ModelError(
                f"{path}: appends no {end_token!r} to a text (the last token of {PROBE!r} is {last!r}), and this model's "
                "vector is read at that token; take tokenizer.json from the model's newest revision"
            )

    def _special_ids(self, path: str) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text's own tokens."""
        whole = self.rust.encode(PROBE).ids
        bare = self.rust.encode(PROBE, add_special_tokens=False).ids
        for at in range(len(whole) - len(bare) + 1):
            if whole[at : at + len(bare)] == bare:
                return whole[:at], whole[at + len(bare) :]
        raise ModelError(f"{path}: its post-processor changes the tokens of the text itself")

    def encode(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Token ids of `prompt + text` for each text, at most `max_tokens` of them."""
        ids: list[list[int]] = []
        lost = np.zeros(len(texts), np.int64)
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = [prompt + text for text in texts[start : start + BATCH_TEXTS]]
            for number, (own, share) in enumerate(self._own_ids(batch), start):
                lost[number] = max(0, round(len(own) / share) - self.room)
                ids.append(self.before + own[: self.room] + self.after)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return Tokens(np.fromiter(chain.from_iterable(ids), np.int32, int(offsets[-1])), offsets, lost)

    def count(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        return len(self.rust.encode(text, add_special_tokens=False).ids)

    def character_spans(self, text: str) -> npt.NDArray[np.int64]:
        """(tokens, 2): the characters [start, stop) of the text that each of its own tokens stands for."""
        offsets = self.rust.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, np.int64).reshape(-1, 2)

    def _own_ids(self, texts: list[str]) -> Iterator[tuple[list[int], float]]:
        """Ids without special tokens, of all of the text or of a beginning that has more than `room`;
        and the share of the text's characters that they stand for."""
        characters = self.room * CHARACTERS_PER_TOKEN
        encodings = self.rust.encode_batch_fast([text[:characters] for text in texts], add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            ids, cut = encoding.ids, characters
            while len(text) > cut and len(ids) < self.room + MARGIN_TOKENS:
                cut *= 2
                ids = self.rust.encode(text[:cut], add_special_tokens=False).ids
            yield ids, min(1.0, cut / max(1, len(text)))
