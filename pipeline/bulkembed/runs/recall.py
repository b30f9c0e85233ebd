"""A finished dataset -> the recipe and the job that made it."""

from __future__ import annotations

from bulkembed import __version__
from bulkembed.config.recipe import Recipe
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import SourceError
from bulkembed.package_files import Package, installed
from bulkembed.records import Model
from bulkembed.runs.job import Job
from bulkembed.source.column_types import without_unknown_fields
from bulkembed.storage.store import Store

NAMES_IN_PROVENANCE = {"model", "revision", "bulkembed"}  # beside the recipe; every dataset of this version says them


def recipe_of(output: str, snapshot: Snapshot) -> Recipe:
    """The recipe that a dataset was made by. Raises SourceError where another version of bulkembed made it."""
    try:
        recipe = Recipe.from_texts(snapshot.provenance)
    except ValueError as error:
        raise made_by_another_version(output, snapshot) from error
    if recipe.fingerprint != snapshot.fingerprint or not snapshot.provenance.keys() >= NAMES_IN_PROVENANCE:
        raise made_by_another_version(output, snapshot)
    return recipe


def made_by_another_version(output: str, snapshot: Snapshot) -> SourceError:
    version = snapshot.provenance.get("bulkembed", "unknown")
    return SourceError(
        f"output {output}: was made by another version of bulkembed ({version}), which describes datasets differently from this one "
        f"({__version__}); use the version that made it, or run the job again, which embeds all rows anew"
    )


def recall_job(store: Store, output: str, source: str | tuple[str, ...], snapshot: Snapshot, model: Model) -> Job:
    """The job that made a dataset, over a source of today. Raises SourceError where the dataset does not say how it was made."""
    recipe = recipe_of(output, snapshot)
    carried = Ledger(store, output, snapshot.fingerprint).read_carried_schema()
    if carried is None:
        raise SourceError(f"output {output}: _meta/runs/{snapshot.fingerprint}.json is missing, so how to embed again is unknown")
    engine = recipe.vector_key.engine(recipe.vector_key.engine_kind)
    cfg = RunConfig(
        source=source,
        exclude=tuple(snapshot.exclude),
        format=snapshot.format,
        output=output,
        model=model.name,
        revision=model.revision,
        engine=engine,
        storage=store.settings,
    )
    return Job(cfg, model, recipe, without_unknown_fields(carried), Package(snapshot.provenance["bulkembed"], installed().digest))
