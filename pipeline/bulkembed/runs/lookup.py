"""A configuration -> the job and what is left to do: the model, the source and the output are looked up, and nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial

from bulkembed.config.recipe import EngineDtype, Recipe
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import key_files
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.run_keys import find_run_key
from bulkembed.dataset.snapshots import Snapshot, View, identity_of
from bulkembed.embedding import hardware, model_files
from bulkembed.errors import ConfigError, HeldBack, SourceError, StorageError
from bulkembed.records import Counts, Failure, Model
from bulkembed.runs import buckets, calibration, guards, kept_columns, row_types
from bulkembed.runs.base import Base, open_base
from bulkembed.runs.buckets import Workplace, in_this_process
from bulkembed.runs.job import Job, load_tokenizer
from bulkembed.runs.mapper import LocalMapper
from bulkembed.runs.night import Asked, Night, plan_night, rows_to_compare, sources_of
from bulkembed.runs.overlap import refuse_linked_output, refuse_overlap
from bulkembed.runs.picks import bounds_of
from bulkembed.runs.versions import Versions
from bulkembed.shards import Shard
from bulkembed.source import columns, planning
from bulkembed.source.objects import LeftOutNames, NoDocuments, SourceListing, SourceObject
from bulkembed.source.places import listing_of
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

MAX_BYTES_HERE = 256 << 20  # of objects that are read while planning; more is read by tasks
HOST_DTYPES: tuple[EngineDtype, ...] = ("bfloat16", "float32")  # what an engine dtype of auto can stand for


@dataclass(frozen=True)
class RunPlan:
    """What a run has to do, as far as it is known before the whole source is read."""

    listing: SourceListing
    versions: Versions
    base: Base
    asked: Asked
    pending: list[Shard]  # to embed; before all of the source is read: all rows of the objects that came
    failures: list[Failure]  # objects that cannot be read
    night: Night | None  # None before all of the source is read
    held_back: str | None = None  # why nothing may be published
    repeated: Snapshot | None = None  # what an earlier run of the same run key has published

    @property
    def objects(self) -> list[SourceObject]:
        return self.listing.objects

    @property
    def left_out(self) -> list[LeftOutNames]:
        return self.listing.left_out

    @property
    def is_still(self) -> bool:
        """Whether the dataset is that of this source already."""
        unchanged = self.night is not None and self.night.is_still and not self.failures and is_unchanged(self.base, self.listing)
        return unchanged or self.repeated is not None

    @property
    def has_retries(self) -> bool:
        """Whether the parent remembers rejects for one of the reasons that are tried again."""
        return any(item.reason in self.asked.retried for item in self.base.rejected.values())

    @cached_property
    def rows_pending(self) -> int:
        return sum(shard.rows for shard in self.pending)

    def too_many_rejects(self, cfg: RunConfig, tonight: Counts) -> str | None:
        """What `max_rejects` says, once all of the source is read. `tonight`: counts of what was embedded tonight."""
        if self.night is None:
            return None
        rows = sum(item.rows for item in self.night.sources)
        known = sum(item.rejects for item in self.night.sources) + self.night.counts.remembered
        if self.base.is_usable:
            gone = len(self.night.matched.forgotten_contents) if self.night.matched else 0
            known += sum(item.rows for item in self.base.rejected.values()) - gone
        return guards.too_many_rejects(cfg, known, tonight, rows)


def open_job(cfg: RunConfig, retried: Collection[str] = ()) -> tuple[Job, RunPlan]:
    """Looks up the model, the source and what is there. It writes nothing. Mistakes are raised here, before any work.

    A source of which little is new is read at once, so that the plan is exact. `retried`: reasons of rejects that are embedded again."""
    store = Store(cfg.storage)
    for place in cfg.sources:
        refuse_overlap(store, place, cfg.output)
    model = model_files.describe(cfg.model, cfg.revision)
    recipe = resolve(cfg, model, hardware.resolved_dtype(cfg.engine.dtype, cfg.ray.address))
    view = View(store, cfg.output)
    with blaming_output(cfg.output):
        recipe, listing = kept_columns.named_columns(cfg, view, recipe, partial(listed_source, cfg, view))
        runs = set(fingerprints(store, cfg.output))
        recipe = recipe_of_started_run(cfg, recipe, store, runs)
        int8_ranges = calibration.newest_of_recipe(recipe, Ledger(store, cfg.output, recipe.fingerprint))
        repeated = None if retried else earlier_run(cfg, view, recipe.line)
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
    store = view.store
    with blaming_output(cfg.output):
        parent = view.newest_of_line(recipe.line, limited=False)

    def is_known(objects: Sequence[SourceObject]) -> bool:
        return parent is not None and parent.source_identity == identity_of(item.id for item in objects)

    try:
        missing = [(place, name) for place in cfg.sources for name in cfg.require if not store.stands(join(store.root(place), name))]
        if missing:
            place, name = missing[0]
            raise HeldBack(f"held back: nothing was embedded or published: {place} has no {name}, which --require asks for")
        listing = listing_of(store, cfg.sources, cfg.exclude, is_known, cfg.format)
        refuse_linked_output(listing.links, cfg.output)
    except StorageError as error:
        raise SourceError(f"source: {error}") from error
    except NoDocuments as error:
        if parent is None or cfg.limit is not None:
            raise
        raise HeldBack(
            f"held back: nothing was embedded or published: {error}; the {parent.documents:,} documents of snapshot {parent.number} stay"
        ) from error
    return listing


def is_unchanged(base: Base, listing: SourceListing) -> bool:
    """Whether the parent was made from exactly these object versions, and all of its files stand."""
    return base.is_usable and {item.id for item in listing.objects} == base.sources.keys()


def earlier_run(cfg: RunConfig, view: View, line: str) -> Snapshot | None:
    """The snapshot that a run of the same run key has published. Where that has expired, the newest of the line."""
    number = find_run_key(view, line, cfg.run_key) if cfg.run_key is not None else None
    if number is None:
        return None
    return view.snapshot(number) if number in view.numbers.live else view.newest_of_line(line, limited=False)


def repeated_plan(job: Job, view: View, repeated: Snapshot) -> RunPlan:
    """The plan of a run whose run key has been there before. It does nothing, and does not look at the source."""
    with blaming_output(job.cfg.output):
        base, versions = open_base(job, view), Versions.of(job, view)
    return RunPlan(SourceListing(), versions, base, Asked(), [], [], still_night(base, SourceListing()), repeated=repeated)


def still_night(base: Base, listing: SourceListing) -> Night:
    """Nothing to do."""
    forgotten = base.parent.forgotten if base.parent else 0
    return Night(base, listing.objects, list(base.sources.values()), carried=sorted(base.files), forgotten=forgotten)


def unread_objects(plan: RunPlan) -> list[SourceObject]:
    """The objects whose keys are not known."""
    return plan.versions.missing(new_objects(plan), len(plan.objects))


def new_objects(plan: RunPlan) -> list[SourceObject]:
    """The objects that the parent does not have; all of them where its files are of no use."""
    known = plan.base.sources if plan.base.is_usable else {}
    return [item for item in plan.objects if item.id not in known]


def read_source_in_types(job: Job, plan: RunPlan, work: Workplace | None) -> tuple[Job, RunPlan]:
    """The plan with the keys of all of the source, and the job in types that hold all values. It writes the run record first.

    `work`: None where nothing may be written yet."""

    def read(job: Job) -> RunPlan:
        if work is not None:
            row_types.write_types(job)
        return read_source(job, replace(plan, versions=plan.versions.in_types_of(job, plan.base.view)), work)

    job, found = row_types.with_types(job, read)
    return (job if work is None else row_types.recorded(job)), found


def read_source(job: Job, plan: RunPlan, work: Workplace | None, max_rows: int = sys.maxsize) -> RunPlan:
    """The plan with the keys of all of the source. `work`: None where nothing may be written yet, and keys lie in this process.

    `max_rows`: how many may lie there. Where there are more, the plan stays as it is."""
    if work is not None:
        plan.versions.write_held(LocalMapper())
    if plan.night is not None:
        return plan
    objects, unreadable = readable_objects(job, plan, work, max_rows)
    if work is None and job.cfg.limit is None and is_much(plan, objects, max_rows):
        return plan
    partitions_for = (lambda documents: in_this_process()) if work is None else work.partitions
    night = plan_night(job, plan.base, objects, plan.versions, partitions_for, plan.asked)
    if not sum(item.rows for item in night.sources) and not unreadable and plan.base.parent is None:
        raise columns.no_rows(job.cfg.source_text)
    return with_guards(job, replace(plan, night=night, pending=night.shards, failures=[*plan.failures, *unreadable]))


def readable_objects(job: Job, plan: RunPlan, work: Workplace | None, max_rows: int) -> tuple[list[SourceObject], list[Failure]]:
    """The objects of the run, and those that cannot be read. Reads the unread ones, without `work` until it holds so many rows."""
    if job.cfg.limit is not None:
        return plan.versions.read_rows(plan.objects, job.cfg.limit)
    unread = unread_objects(plan)
    if work is None:
        unreadable = plan.versions.read(unread, LocalMapper(), max_rows)
    else:
        unreadable = plan.versions.read_and_write(unread, work.mapper(sum(item.size for item in unread)))
    bad = {failure.where for failure in unreadable}
    return [item for item in plan.objects if item.uri not in bad], unreadable


def is_much(plan: RunPlan, objects: list[SourceObject], max_rows: int) -> bool:
    """Whether more rows than that are to be compared, in these objects and in those that went."""
    if plan.versions.missing([item for item in objects if item.id not in plan.base.sources], len(plan.objects)):
        return True  # reading has ended early
    return rows_to_compare(plan.base, sources_of(plan.base, objects, plan.versions)) > max_rows


def with_guards(job: Job, plan: RunPlan) -> RunPlan:
    """The plan with what holds it back. With unreadable objects it is not published anyway."""
    if plan.night is None or (plan.failures and not job.cfg.skip_unreadable):
        return plan
    return replace(plan, held_back=guards.held_back(plan.base.parent, plan.night.counts.deleted, job.cfg))


def plan_again(job: Job, plan: RunPlan, published: Collection[str], work: Workplace) -> RunPlan:
    """The plan on what is there now. `published`: names of files that this run has published meanwhile."""
    work.clear()  # keys of the plan before
    view, read = plan.base.view.again(), plan.versions
    versions = replace(Versions.of(job, view), held=read.held, known=read.known, layouts=read.layouts)
    base = open_base_for(job, view, plan.listing, plan.asked.retried)
    # Objects that could not be read are read again.
    fresh = RunPlan(plan.listing, versions, base, Asked(plan.asked.retried, frozenset(published)), [], list(plan.listing.failures), None)
    return read_source(job, fresh, work)


def with_layouts(job: Job, plan: RunPlan) -> RunPlan:
    """A plan of a large source with all rows of the objects that came as pending. It reads footers, and the lines of JSON lines."""
    if plan.night is not None:
        return plan
    check = partial(columns.require_columns, job.recipe)
    texts = job.recipe.vector_key.text_columns
    shards, failures = planning.plan(job.store, new_objects(plan), check, texts, bounds_of(job))
    return replace(plan, pending=shards, failures=[*plan.failures, *failures])


@contextmanager
def blaming_output(output: str) -> Iterator[None]:
    """Turns faults of the store within the context into a ConfigError about `output`."""
    try:
        yield
    except StorageError as error:
        raise ConfigError(f"output: cannot read {output}: {error}") from error
