"""The demo corpus: what an interrupted attempt leaves does not count as a corpus."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scripts.samples import demo_corpus


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
