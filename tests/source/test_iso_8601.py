"""Dates and times have the text that ISO 8601 gives them, in any year."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.source.iso_8601 import iso_texts


@given(st.lists(st.none() | st.datetimes()))
def test_moments_are_their_iso_text_in_utc(moments: list[datetime | None]) -> None:
    texts = [moment and moment.isoformat(timespec="microseconds") for moment in moments]
    assert iso_texts(pa.array(moments, pa.timestamp("us"))) == texts
    aware = [moment and moment.replace(tzinfo=UTC) for moment in moments]
    berlin = pa.array(aware, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Europe/Berlin"))
    assert iso_texts(berlin) == [text and f"{text}Z" for text in texts]


@given(st.lists(st.none() | st.dates()))
def test_dates_are_their_iso_text(days: list[date | None]) -> None:
    assert iso_texts(pa.array(days, pa.date32())) == [day and day.isoformat() for day in days]
    assert iso_texts(pa.array(days, pa.date64())) == [day and day.isoformat() for day in days]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("ns")])
@given(st.data())
def test_any_number_has_a_text_that_gives_it_back(kind: pa.DataType, data: st.DataObject) -> None:
    bits = kind.bit_width
    numbers = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=1))
    texts = iso_texts(pa.array(numbers, pa.int32() if bits == 32 else pa.int64()).view(kind))
    parts = 1 if kind == pa.date32() else {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    assert [number_of(text or "", parts) for text in texts] == numbers


def number_of(text: str, parts: int) -> int:
    """The number of a text. numpy knows any year in days, and a clock is within a day. `parts`: of a second; 1 for dates."""
    day, _, clock = text.removesuffix("Z").partition("T")
    days = int(np.datetime64(day, "D").astype(np.int64))
    if not clock:
        return days
    whole, _, fraction = clock.partition(".")
    hour, minute, second = map(int, whole.split(":"))
    return ((days * 24 + hour) * 60 + minute) * 60 * parts + second * parts + int(fraction or 0)


def test_a_zone_that_is_unknown_here_is_no_hindrance() -> None:
    assert iso_texts(pa.array([1], pa.timestamp("s", "Mars/Phobos"))) == ["1970-01-01T00:00:01Z"]
    assert iso_texts(pa.array([-7899575504], pa.timestamp("s", "Europe/Berlin"))) == ["1719-09-03T17:28:16Z"], "53 minutes and 28 seconds"
