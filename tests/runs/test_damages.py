"""Whatever object of an output is damaged between two nights: the next run refuses in one line, or makes it anew, or `verify` reports it.

A dataset that is wrong while `verify` finds nothing would be the one thing that must not be."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.errors import BulkembedError, StorageError, in_one_line
from bulkembed.storage.store import Store
from scripts.chaos_rounds import damages, outcome
from scripts.chaos_rounds.material import Places, first_documents, following_documents
from scripts.chaos_rounds.outcome import Outcome, outcome_of
from scripts.chaos_rounds.scene import Damage, Scene
from tests.support.runs import in_one_process

DOCUMENTS = 60
SEEDS = int(os.environ.get("DAMAGE_SEEDS", "6"))  # more of them: docs/reliability.md


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_object_never_makes_a_wrong_dataset_in_silence(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(outcome, "WORK", tmp_path)
    chance, where = np.random.default_rng(seed), Places(str(tmp_path / "in"), str(tmp_path / "out"))
    documents = first_documents(DOCUMENTS, "simulated")
    cfg = config(where, qwen)
    for night in range(3):
        where.write_source(documents, chance)
        if night == 2:
            after_damage(cfg, where, qwen, damaged(where, seed))
        else:
            in_one_process(cfg).require_complete()
        documents = following_documents(documents, chance, 0.2)
    assert outcome_of(where, qwen, DOCUMENTS, "simulated") == Outcome()


def config(where: Places, model: str) -> RunConfig:
    values = {"source": where.source, "output": where.output, "model": model, "max_tokens": 64, "shards": {"max_rows": 20}}
    return RunConfig.model_validate(values | {"engine": {"kind": "simulated"}})


def damaged(where: Places, seed: int) -> Damage:
    scene = Scene(where, None, [], random.Random(seed))  # type: ignore[arg-type]  # no cluster
    assert damages.of("damage-rest")(scene)
    return scene.damages[0]


def after_damage(cfg: RunConfig, where: Places, model: str, damage: Damage) -> None:
    """A run after a damage. What it or `verify` reports is mended, as from a backup, and the run comes again."""
    try:
        in_one_process(cfg).require_complete()
        found = outcome_of(where, model, DOCUMENTS, "simulated")
        said = found.problems
        assert found == Outcome(problems=said), "wrong in silence"
    except BulkembedError as error:
        said = (str(error),)
        assert in_one_line(str(error)) == str(error)
    if said:
        assert damages.named_in(" ".join(said), [damage]), said
        damages.mend(Store(), [damage])
        in_one_process(cfg).require_complete()


def test_a_damaged_vector_is_not_carried_into_another_file(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "WORK", tmp_path)
    chance, where, store = np.random.default_rng(1), Places(str(tmp_path / "in"), str(tmp_path / "out")), Store()
    documents = first_documents(DOCUMENTS, "simulated")
    where.write_source(documents, chance)
    cfg = config(where, qwen)
    in_one_process(cfg).require_complete()
    for path in tmp_path.glob("out/data/*/*"):  # one bit of one vector: the least of a mantissa, which no norm shows
        footer = pq.read_metadata(path).row_group(0)
        column = next(footer.column(number) for number in range(footer.num_columns) if "embedding" in footer.column(number).path_in_schema)
        data = bytearray(path.read_bytes())
        data[column.data_page_offset + column.total_compressed_size - 4] ^= 1
        path.write_bytes(data)
    where.write_source(following_documents(documents, chance, 0.2), chance)
    said, n_refused = r"out/data/.*: is unreadable: .*; remove it and run again, which makes its rows anew", 0
    while True:  # as each line says, until no damaged file is left that is rewritten
        try:
            in_one_process(cfg).require_complete()
            break
        except StorageError as error:
            assert re.search(said, str(error)) and not list(tmp_path.glob("out/_meta/snapshots/00000002.json"))
            store.delete(str(error).partition(": is unreadable")[0])
            n_refused += 1
    assert n_refused
    found = outcome_of(where, qwen, DOCUMENTS, "simulated")
    assert all("bytes are not those" in line or "CRC" in line for line in found.problems)
