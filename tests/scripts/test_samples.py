"""The demo corpus: what an interrupted attempt leaves does not count as a corpus. And what is new in a night of a large one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.samples import demo_corpus, nights


def test_the_demo_corpus_appears_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"{number}", "kind": "topic", "title": "", "text": "text"} for number in range(4)]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_corpus, "documents", lambda: iter(rows))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pq, "write_table", interrupt)
        demo_corpus.write(tmp_path / "corpus", rows_per_file=2)
    assert not (tmp_path / "corpus").exists()
    assert demo_corpus.write(tmp_path / "corpus", rows_per_file=2) == 4
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == ["part-000.parquet", "part-001.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_night_says_exactly_how_many_texts_are_new(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    corpus, before = nights.first_night(1000, characters=40), set[str]()
    previous = nights.first_night(0)
    for _ in range(4):
        nights.write(corpus, tmp_path / "in", 3, random)
        written = pa.concat_tables([pq.ParquetFile(path).read() for path in (tmp_path / "in").iterdir()])
        assert len(set(written["id"].to_pylist())) == len(written) == corpus.rows
        texts = set(written["text"].to_pylist())
        assert len(texts - before) == nights.new_contents(previous, corpus)
        shares = nights.Shares(kept_changed=0.01, swapped=0.01, copied=0.01, doubled=0.01)
        previous, before, corpus = corpus, texts, nights.next_night(corpus, shares, random)
    assert corpus.rows == 1000 + 4 * (5 - 2)
