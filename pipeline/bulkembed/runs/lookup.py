"""A configuration -> the job and what is left to do: the model, the source and the output are looked up, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from bulkembed import __version__
from bulkembed.config.recipe import EngineDtype, Recipe
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.embedding import hardware, model_files
from bulkembed.errors import ConfigError, SourceError, StorageError
from bulkembed.records import Model
from bulkembed.runs import calibration, publication
from bulkembed.runs.job import Job, load_tokenizer
from bulkembed.runs.overlap import refuse_linked_output, refuse_overlap
from bulkembed.scans import Layout
from bulkembed.source import columns, planning
from bulkembed.source.columns import CarriedColumns
from bulkembed.source.objects import SourceListing, source_listing
from bulkembed.source.planning import ShardPlan
from bulkembed.storage.store import Store

NAMES_IN_PROVENANCE = {"model", "revision", "bulkembed"}  # beside the recipe; every dataset of this version says them
HOST_DTYPES: tuple[EngineDtype, ...] = ("bfloat16", "float32")  # what an engine dtype of auto can stand for


def open_job(cfg: RunConfig) -> tuple[Job, ShardPlan]:
    """Looks up the model, the source and what is done. It writes nothing. Mistakes are raised here, before any work."""
    store = Store(cfg.storage)
    refuse_overlap(store, cfg.source, cfg.output)
    model = model_files.describe(cfg.model, cfg.revision)
    recipe = resolve(cfg, model, hardware.resolved_dtype(cfg.engine.dtype, cfg.ray.address))
    with blaming_output(cfg.output):
        runs = set(fingerprints(store, cfg.output))
        recipe = recipe_of_started_run(cfg, recipe, store, runs)
        int8_ranges = calibration.newest_of_recipe(recipe, Ledger(store, cfg.output, recipe.fingerprint))
    require_short_prompt(model, recipe)
    listing = listed_source(cfg, store)

    def with_recipe(recipe: Recipe) -> tuple[Job, ShardPlan]:
        return look_up_output(cfg, model, recipe, listing, runs)

    if int8_ranges is None:
        return with_recipe(recipe)
    if int8_ranges.is_final:
        return with_recipe(recipe.with_int8_ranges(int8_ranges.texts))
    # Nothing of int8 columns is done without ranges: the plan is then of every row of the source.
    job, plan = with_recipe(recipe)
    return with_recipe(recipe.with_int8_ranges(int8_ranges.texts)) if int8_ranges.are_valid_for(plan.pending) else (job, plan)


def recipe_of_started_run(cfg: RunConfig, recipe: Recipe, store: Store, runs: set[str]) -> Recipe:
    """The recipe with the engine dtype of a started run. Where `engine.dtype` is auto, another kind of host may have started this run."""
    if cfg.engine.dtype != "auto":
        return recipe
    for dtype in dict.fromkeys((recipe.vector_key.engine_dtype, *HOST_DTYPES)):
        candidate = recipe.in_dtype(dtype)
        ledger = Ledger(store, cfg.output, candidate.fingerprint)
        if candidate.fingerprint in runs or (candidate.row_schema.has_int8 and calibration.newest(ledger)[0]):
            return candidate
    return recipe


def require_short_prompt(model: Model, recipe: Recipe) -> None:
    """Raises ConfigError where the prompt leaves too little for the document, ModelError for a tokenizer that loses the end token."""
    limit = recipe.vector_key.chunk_tokens
    tokenizer = load_tokenizer(model, limit)
    if tokenizer.count(recipe.vector_key.prompt) * 2 > tokenizer.room:
        raise ConfigError(f"prompt: takes more than half of the {limit} tokens of a document")


def listed_source(cfg: RunConfig, store: Store) -> SourceListing:
    try:
        listing = source_listing(store, cfg.source)
        refuse_linked_output(listing.links, cfg.output)
    except StorageError as error:
        raise SourceError(f"source: {error}") from error
    return listing


def look_up_output(cfg: RunConfig, model: Model, recipe: Recipe, listing: SourceListing, runs: set[str]) -> tuple[Job, ShardPlan]:
    """The job of this recipe, and its shards. `runs`: the fingerprints that have a run record."""
    ledger = Ledger(Store(cfg.storage), cfg.output, recipe.fingerprint)
    with blaming_output(cfg.output):
        done = ledger.done()
        known = ledger.read_carried_schema() if recipe.fingerprint in runs else None
    try:
        carried = CarriedColumns(known, {}) if known else columns.carried_columns(ledger.store, listing.objects, recipe, cfg.source)
    except StorageError as error:
        raise SourceError(f"source: {error}") from error
    job = Job(cfg, model, recipe, carried.schema)
    return job, plan_shards(job, listing, done, carried.layouts)


def plan_shards(job: Job, listing: SourceListing, done: list[str], layouts: Mapping[str, Layout]) -> ShardPlan:
    """The shards of the source that are done and pending. `done`: ids of published shards. `layouts`: known layouts, by object id."""
    cfg = job.cfg
    max_rows = max(1, min(cfg.shards.max_rows, (cfg.shards.memory_mib << 20) // (job.model.width * 4)))
    check = partial(columns.require_columns, job.recipe)
    texts = job.recipe.vector_key.text_columns
    plan = planning.plan(job.store, listing.objects, done, max_rows, cfg.limit, check, texts, cfg.shards.text_mib << 20, layouts)
    plan = replace(plan, failures=[*listing.failures, *plan.failures], listing=listing)
    if not (plan.done or plan.pending or plan.failures):
        raise columns.no_rows(cfg.source)
    return publication.with_guards(job, plan)


@contextmanager
def blaming_output(output: str) -> Iterator[None]:
    """Turns faults of the store within the context into a ConfigError about `output`."""
    try:
        yield
    except StorageError as error:
        raise ConfigError(f"output: cannot read {output}: {error}") from error


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


def recall_job(store: Store, output: str, source: str, snapshot: Snapshot, model: Model) -> Job:
    """The job that made a dataset, over a source of today. Raises SourceError where the dataset does not say how it was made."""
    recipe = recipe_of(output, snapshot)
    carried = Ledger(store, output, snapshot.fingerprint).read_carried_schema()
    if carried is None:
        raise SourceError(f"output {output}: _meta/runs/{snapshot.fingerprint}.json is missing, so how to embed again is unknown")
    engine = recipe.vector_key.engine(recipe.vector_key.engine_kind)
    cfg = RunConfig(source=source, output=output, model=model.name, revision=model.revision, engine=engine, storage=store.settings)
    return Job(cfg, model, recipe, carried, snapshot.provenance["bulkembed"])
