"""Dates and times -> their text as ISO 8601 has them. A moment is in UTC, since its own zone may be unknown here, or off by seconds."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # of a fraction of a second
DAYS_OF_400_YEARS = 146_097
DAYS_OF_PYTHON = range(date.min.toordinal(), date.max.toordinal() + 1)
EPOCH = date(1970, 1, 1).toordinal()


def iso_texts(array: pa.Array) -> list[str | None]:
    """`array`: of dates, times of day, or timestamps."""
    kind = array.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    texts: list[str | None] = array.cast(pa.string()).to_pylist()
    if pa.types.is_time(kind):
        return texts
    numbers = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    return [None if text is None else iso_text(text, number, kind) for text, number in zip(texts, numbers, strict=True)]


def iso_text(text: str, number: int, kind: pa.DataType) -> str:
    """The text of a date or a timestamp. `text`: Arrow's, which is wrong in far years; `number`: as Arrow stores it."""
    digits = 0 if pa.types.is_date(kind) else DIGITS[kind.unit]
    days, part = divmod(number, 1 if kind == pa.date32() else 86_400_000 if kind == pa.date64() else 86_400 * 10**digits)
    if days + EPOCH in DAYS_OF_PYTHON:
        return text.replace(" ", "T", 1)
    if pa.types.is_date(kind):
        return day_text(days)
    second, fraction = divmod(part, 10**digits)
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{day_text(days)}T{clock}{f'.{fraction:0{digits}}' if digits else ''}{'' if kind.tz is None else 'Z'}"


def day_text(days: int) -> str:
    """`days`: since 1970. The calendar repeats itself every 400 years."""
    cycles, day = divmod(days, DAYS_OF_400_YEARS)
    within = date.fromordinal(EPOCH + day)
    year = within.year + 400 * cycles
    return f"{'-' if year < 0 else ''}{abs(year):04}-{within:%m-%d}"
