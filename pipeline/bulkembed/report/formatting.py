"""Rows, sizes and times as text."""

from __future__ import annotations

from collections.abc import Iterable

from bulkembed.errors import in_one_line


def lines(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of name and value, a line each, whatever the value holds: names of objects may have line breaks."""
    return "\n".join(f"  {name:<12} {in_one_line(value)}" for name, value in rows)


def counted(count: int, noun: str) -> str:
    """`1 shard`, or `1,200 shards`. `noun` is the singular."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: float) -> str:
    """Bytes in decimal units: `1.5 MB`."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """`1 h 05 min`, `2 min 03 s` or `4 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
