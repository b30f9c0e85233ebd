"""A long text -> windows under a token budget, cut where a reader would cut. Pure."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

# Where a window had better end, best first: behind a paragraph, a line, a sentence, a word.
BORDERS = [
    re.compile(r"\n\s*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(r"[.!?\u2026\u061f\u06d4][\"'\u2019\u201d)\]]*\s+|[\u3002\uff01\uff1f\u0964][\u300d\u300f\u201d]?\s*"),
    re.compile(r"\s+"),
]


def windows(text: str, offsets: npt.NDArray[np.int64], room: int, overlap: int) -> list[tuple[int, int]]:
    """Character ranges of `text`, each of at most `room` tokens, that together hold all of it, in order.

    `offsets`: (tokens, 2), the characters of each token. Each window begins up to `overlap` tokens
    before the end of the one before, and ends in its second half, at the best border there is."""
    overlap = min(overlap, max(0, room // 2 - 1))
    spans: list[tuple[int, int]] = []
    start, first = 0, 0
    while first + room < len(offsets):
        # Where the first token begins that has no room. Several tokens can share a character: that one is not cut either.
        latest = int(offsets[first + room, 0])
        earliest = int(offsets[first + room // 2, 0])
        stop = max(start + 1, border(text, max(earliest, start), latest))
        spans.append((start, stop))
        after = max(first + 1, int(np.searchsorted(offsets[:, 0], stop)))
        first = max(first + 1, after - overlap)
        start = stop if not overlap else min(stop, max(start + 1, word_start(text, int(offsets[first, 0]), stop)))
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def border(text: str, earliest: int, latest: int) -> int:
    """The best place in (earliest, latest] to end a window; `latest` where there is none."""
    for pattern in BORDERS:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest)]
        if ends and ends[-1] > earliest:
            return ends[-1]
    return latest


def word_start(text: str, earliest: int, latest: int) -> int:
    """The first start of a word in [earliest, latest), else `earliest`."""
    if earliest == 0 or text[earliest - 1].isspace():
        return earliest
    match = BORDERS[-1].search(text, earliest, latest)
    return match.end() if match and match.end() < latest else earliest
