"""Durations as people write them."""

from __future__ import annotations

import pytest

from bulkembed.durations import duration_text, seconds_of
from bulkembed.errors import ConfigError


def test_durations_have_units() -> None:
    texts = ("90", "90s", "1.5m", "24h", "7d", "2w", "0")
    assert [seconds_of(text, "grace") for text in texts] == [90, 90, 90, 86400, 7 * 86400, 14 * 86400, 0]
    assert seconds_of(3.5, "grace") == 3.5
    assert [duration_text(seconds) for seconds in (90, 86400, 14 * 86400, 5400, 0.5)] == ["90s", "1d", "2w", "90m", "0.5s"]


@pytest.mark.parametrize("wrong", ["", "h", "1y", "-1", "1h30m", -1.0, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(wrong: str | float) -> None:
    with pytest.raises(ConfigError, match=r"grace: .* is no duration"):
        seconds_of(wrong, "grace")
