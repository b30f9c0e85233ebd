"""docs/sources.md says what a run makes of each of its files and types."""

from __future__ import annotations

from scripts.samples.sources import PAGE, page


def test_the_page_is_what_runs_make_of_the_samples(qwen: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(qwen), "docs/sources.md is out of date: run scripts/samples/sources.py"
