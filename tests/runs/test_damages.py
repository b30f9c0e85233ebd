"""Whatever object of an output is damaged between two nights: the next run refuses in one line, or makes it anew, or `verify` reports it.

A dataset that is wrong while `verify` finds nothing would be the one thing that must not be."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.errors import BulkembedError, in_one_line
from bulkembed.storage.store import Store
from scripts.chaos_rounds import damages, outcome
from scripts.chaos_rounds.material import Places, first_documents, following_documents
from scripts.chaos_rounds.outcome import Outcome, outcome_of
from scripts.chaos_rounds.scene import Damage, Scene
from tests.support.runs import in_one_process

DOCUMENTS = 60


@pytest.mark.parametrize("seed", range(6))
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
