"""A configuration -> the job and what is left to do: the model, the source and the output are looked up, and nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from bulkembed.config.recipe import EngineDtype, Recipe
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import key_files
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.run_keys import find_run_key
from bulkembed.dataset.snapshots import Snapshot, View, identity_of
from bulkembed.embedding import hardware, model_files
from bulkembed.errors import ConfigError, HeldBack
from bulkembed.records import Model
from bulkembed.runs import buckets, calibration, kept_columns, row_types
from bulkembed.runs.base import Base, open_base
from bulkembed.runs.blame import blaming_output, blaming_source
from bulkembed.runs.buckets import Workplace
from bulkembed.runs.job import Job, load_tokenizer
from bulkembed.runs.night import Asked
from bulkembed.runs.overlap import refuse_file, refuse_linked_output, refuse_overlap
from bulkembed.runs.plans import RunPlan, is_unchanged, read_source, still_night, unread_objects
from bulkembed.runs.versions import Versions
from bulkembed.source.objects import NoDocuments, SourceListing, SourceObject
from bulkembed.source.places import listing_of
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

MAX_BYTES_HERE = 256 << 20  # of objects that are read while planning; more is read by tasks
HOST_DTYPES: tuple[EngineDtype, ...] = ("bfloat16", "float32")  # what an engine dtype of auto can stand for


def open_job(cfg: RunConfig, retried: Collection[str] = ()) -> tuple[Job, RunPlan]:
    """Looks up the model, the source and what is there. It writes nothing. Mistakes are raised here, before any work.

    A source of which little is new is read at once, so that the plan is exact. `retried`: reasons of rejects that are embedded again."""
    store = Store(cfg.storage)
    for place in cfg.sources:
        refuse_overlap(store.of_source(), place, cfg.output)
    refuse_file(cfg.output)
    model = model_files.describe(cfg.model, cfg.revision)
    recipe = resolve(cfg, model, hardware.resolved_dtype(cfg.engine.dtype, cfg.ray.address))
    view = View(store, cfg.output)
    recipe, listing = kept_columns.named_columns(cfg, view, recipe, partial(listed_source, cfg, view))
    with blaming_output(cfg.output):
        runs = set(fingerprints(store, cfg.output))
        recipe = recipe_of_started_run(cfg, recipe, store, runs)
        int8_ranges = calibration.newest_of_recipe(recipe, Ledger(store, cfg.output, recipe.fingerprint))
        # Without its record nothing is known of the types of a line.
        repeated = earlier_run(cfg, view, recipe.line) if recipe.line in runs and not retried else None
    require_short_prompt(model, recipe)
    if listing is None:
        listing = listed_source(cfg, view, recipe) if repeated is None else SourceListing()
    carried, types = row_types.first_types(cfg, recipe, view, listing.objects, recipe.line in runs)
    job = Job(cfg, model, recipe, carried, types=types)
    if repeated is not None:
        return job, repeated_plan(job, view, repeated)
    if int8_ranges is None:
        return plan_in_types(job, view, listing, retried)
    with_ranges, plan = plan_in_types(calibration.with_int8_ranges(job, int8_ranges), view, listing, retried)
    # Provisional ranges serve while it is sure that nothing is embedded. Otherwise they are measured again, on every row.
    if int8_ranges.is_final or (plan.night is not None and not plan.pending):
        return with_ranges, plan
    return plan_in_types(replace(job, carried=with_ranges.carried, types=with_ranges.types), view, listing, retried)


def plan_in_types(job: Job, view: View, listing: SourceListing, retried: Collection[str]) -> tuple[Job, RunPlan]:
    """The plan, and the job in types that hold all values, as far as the source is read."""
    return row_types.with_types(job, lambda job: plan_run(job, view, listing, retried))


def plan_run(job: Job, view: View, listing: SourceListing, retried: Collection[str]) -> RunPlan:
    with blaming_output(job.cfg.output):
        base, versions = open_base_for(job, view, listing, retried), Versions.of(job, view)
    plan = RunPlan(listing, versions, base, Asked(retried), [], list(listing.failures), None)
    if is_unchanged(base, listing):
        return replace(plan, night=still_night(base, listing))
    if job.cfg.limit is None and sum(item.size for item in unread_objects(plan)) > MAX_BYTES_HERE:
        return plan
    return read_source(job, plan, None, buckets.ROWS_HERE)


def open_base_for(job: Job, view: View, listing: SourceListing, retried: Collection[str]) -> Base:
    """What the run builds on. Every document of the source is looked at where rejects are tried again, since these are anywhere in it;
    and where keys of an object that went are lost, since nothing else says which documents went with it."""
    base = open_base(job, view)
    went = sorted(base.sources.keys() - {item.id for item in listing.objects})
    lost = len(went) - len(key_files.scanned(job.store, job.cfg.output, job.line, went, len(base.sources)))
    return replace(base, is_usable=base.is_usable and not retried and not lost, has_keys=not lost)


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


def listed_source(cfg: RunConfig, view: View, recipe: Recipe) -> SourceListing:
    """What is there. Raises HeldBack where nothing is, or a required name is missing, and a dataset could be emptied."""
    store = view.store.of_source()
    with blaming_output(cfg.output):
        parent = view.newest_of_line(recipe.line, limited=False)

    def is_known(objects: Sequence[SourceObject]) -> bool:
        return parent is not None and parent.source_identity == identity_of(item.id for item in objects)

    try:
        with blaming_source():
            missing = [(place, name) for place in cfg.sources for name in cfg.require if not store.stands(join(store.root(place), name))]
            if missing:
                place, name = missing[0]
                raise HeldBack(f"held back: nothing was embedded or published: {place} has no {name}, which --require asks for")
            listing = listing_of(store, cfg.sources, cfg.exclude, is_known, cfg.format)
            refuse_linked_output(listing.links, cfg.output)
    except NoDocuments as error:
        if parent is None or cfg.limit is not None:
            raise
        raise HeldBack(
            f"held back: nothing was embedded or published: {error}; the {parent.documents:,} documents of snapshot {parent.number} stay"
        ) from error
    return listing


def earlier_run(cfg: RunConfig, view: View, line: str) -> Snapshot | None:
    """The snapshot that a run of the same run key has published. Where that has expired, the newest of the line.

    None also where its record or something of the newest was lost: then the run is needed again."""
    number = find_run_key(view, line, cfg.run_key) if cfg.run_key is not None else None
    newest = view.newest_of_line(line, limited=False) if number is not None else None
    if number is None or number not in view.numbers.taken or (newest is not None and newest.number in view.doubted):
        return None
    return view.snapshot(number) if number in view.numbers.live else newest


def repeated_plan(job: Job, view: View, repeated: Snapshot) -> RunPlan:
    """The plan of a run whose run key has been there before. It does nothing, and does not look at the source."""
    with blaming_output(job.cfg.output):
        base, versions = open_base(job, view), Versions.of(job, view)
    return RunPlan(SourceListing(), versions, base, Asked(), [], [], still_night(base, SourceListing()), repeated=repeated)


def plan_again(job: Job, plan: RunPlan, published: Collection[str], work: Workplace) -> RunPlan:
    """The plan on what is there now. `published`: names of files that this run has published meanwhile."""
    work.clear()  # keys of the plan before
    view, read = plan.base.view.again(), plan.versions
    versions = replace(Versions.of(job, view), held=read.held, known=read.known, layouts=read.layouts)
    base = open_base_for(job, view, plan.listing, plan.asked.retried)
    # Objects that could not be read are read again.
    fresh = RunPlan(plan.listing, versions, base, Asked(plan.asked.retried, frozenset(published)), [], list(plan.listing.failures), None)
    return read_source(job, fresh, work)
