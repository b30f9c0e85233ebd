"""A long text -> windows under a token budget, which end at paragraphs, lines, sentences or words. Pure."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

# Where a window may end, the best place first: after a paragraph, a line, a sentence, a word.
BORDERS = [
    re.compile(r"\n\s*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"[.!?\u2026\u061f\u06d4][\"'\u2019\u201d)\]]*\s+|[\u3002\uff01\uff1f\u0964][\u300d\u300f\u201d]?\s*"),
    re.compile(r"\s+"),
]


def cut_windows(text: str, offsets: npt.NDArray[np.int64], room: int, overlap: int) -> list[tuple[int, int]]:
    """Character ranges of `text` in order. Each has at most `room` tokens, and together they cover the whole text.

    `offsets`: (tokens, 2), the characters of each token. A window starts up to `overlap` tokens before the end of the previous one,
    and ends at the best border in its second half."""
    overlap = min(overlap, max(0, room // 2 - 1))
    spans: list[tuple[int, int]] = []
    start, first = 0, 0
    while first + room < len(offsets):
        # The first token without room starts here. Several tokens can share a character, and such a character is not cut either.
        latest = int(offsets[first + room, 0])
        earliest = int(offsets[first + room // 2, 0])
        stop = max(start + 1, best_border(text, max(earliest, start), latest))
        spans.append((start, stop))
        after = max(first + 1, int(np.searchsorted(offsets[:, 0], stop)))
        first = max(first + 1, after - overlap)
        start = stop if not overlap else min(stop, max(start + 1, word_start(text, int(offsets[first, 0]), stop)))
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def best_border(text: str, earliest: int, latest: int) -> int:
    """The best place in (earliest, latest] to end a window; `latest` where the text has no border there."""
    for pattern in BORDERS:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest)]
        if ends and ends[-1] > earliest:
            return ends[-1]
    return latest


def word_start(text: str, earliest: int, latest: int) -> int:
    """The first start of a word in [earliest, latest); `earliest` where there is none."""
    if earliest == 0 or text[earliest - 1].isspace():
        return earliest
    match = BORDERS[-1].search(text, earliest, latest)
    return match.end() if match and match.end() < latest else earliest
