"""Windows of long texts, on arbitrary texts with arbitrary token borders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.text.windows import cut_windows

TEXTS = st.text(st.sampled_from("ab \n.!\u3002\u0964\u00e9\u0301\U0001f9d1\u200d"), max_size=300)


@st.composite
def tokenized(draw: st.DrawFn) -> tuple[str, npt.NDArray[np.int64]]:
    """A text and the characters of each of its tokens: some characters have several, some have none."""
    text = draw(TEXTS)
    offsets: list[tuple[int, int]] = []
    at = 0
    while at < len(text):
        length = draw(st.integers(1, 4))
        stop = min(len(text), at + length)
        kind = draw(st.sampled_from(["one", "one", "one", "shared", "none"]))
        if kind != "none":
            offsets += [(at, stop)] * (draw(st.integers(2, 3)) if kind == "shared" else 1)
        at = stop
    return text, np.array(offsets, np.int64).reshape(-1, 2)


@given(tokenized(), st.integers(1, 40), st.integers(0, 40))
def test_windows_hold_all_of_the_text_in_order(given: tuple[str, npt.NDArray[np.int64]], room: int, overlap: int) -> None:
    text, offsets = given
    found = cut_windows(text, offsets, room, overlap)
    at = 0
    for start, stop in found:
        assert start <= at < stop, "a hole, or a window that adds nothing"
        at = stop
    assert at == len(text)
    assert [start for start, _ in found] == sorted({start for start, _ in found}), "starts go forward"
    if not overlap:
        assert "".join(text[start:stop] for start, stop in found) == text


@given(tokenized(), st.integers(4, 40), st.integers(0, 19))
def test_windows_keep_to_their_room(given: tuple[str, npt.NDArray[np.int64]], room: int, overlap: int) -> None:
    """Up to three tokens share a character here, which no window cuts: so many may be over."""
    text, offsets = given
    for start, stop in cut_windows(text, offsets, room, overlap):
        inside = np.count_nonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
        assert inside <= room + 3


def words(text: str) -> npt.NDArray[np.int64]:
    """One token a word."""
    starts = [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]
    return np.array([(start, start + len(text[start:].split(maxsplit=1)[0])) for start in starts], np.int64)


@pytest.mark.parametrize(
    ("text", "room", "pieces"),
    [
        ("one two three. four five six. seven eight", 4, ["one two three. ", "four five six. ", "seven eight"]),
        ("one two three\n\nfour five. six", 5, ["one two three\n\n", "four five. six"]),
        ("one two three four five six", 4, ["one two three four ", "five six"]),
        ("short", 4, ["short"]),
        ("", 4, []),
    ],
)
def test_windows_end_where_a_reader_would_end_them(text: str, room: int, pieces: list[str]) -> None:
    offsets = words(text) if text else np.empty((0, 2), np.int64)
    assert [text[start:stop] for start, stop in cut_windows(text, offsets, room, 0)] == pieces


def test_overlap_repeats_whole_words() -> None:
    text = "one two three four five six seven eight"
    found = [text[start:stop] for start, stop in cut_windows(text, words(text), 4, 1)]
    assert found[0] == "one two three four "
    assert found[1].startswith("four ")
