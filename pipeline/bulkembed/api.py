"""bulkembed from Python: plan, run, and read what came out.

    import bulkembed

    cfg = bulkembed.RunConfig(source="s3://corpus/docs", output="s3://corpus/vectors", model="Qwen/Qwen3-Embedding-0.6B")
    summary = bulkembed.run(cfg)
    table = bulkembed.open_dataset(cfg.output).to_table(columns=["id", "embedding"])

Every function raises a BulkembedError where the command line would end with an exit code that is not 0. docs/api.md says which,
and what a run leaves as it was in the process of its caller. The command line is a client of this module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from bulkembed.cluster import connect
from bulkembed.cluster.on_demand import OnDemand
from bulkembed.config import toml_files
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.feed import Feed, FeedKey, FeedVectors, write_feed
from bulkembed.dataset.gc import GcPlan
from bulkembed.dataset.leases import lease
from bulkembed.dataset.leftovers import find_leftovers
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.repair import Problem, Repair, plan_repair
from bulkembed.dataset.repair import repair as take_back
from bulkembed.dataset.snapshots import Snapshot, newest_dataset
from bulkembed.errors import ConfigError, StorageError
from bulkembed.history import current, files, open_dataset, publish, rollback, snapshots
from bulkembed.inspection.resample import Resample, Verification, resample_dataset
from bulkembed.inspection.search import Hit, search_dataset
from bulkembed.inspection.status import RunStatus, status_of
from bulkembed.inspection.verify import verify as problems_of
from bulkembed.planned import Plan
from bulkembed.records import REJECT_REASONS
from bulkembed.runs.blame import blaming_writes
from bulkembed.runs.estimate import Estimate, Prices
from bulkembed.runs.forget import Forgotten
from bulkembed.runs.lookup import open_job
from bulkembed.runs.places import Place, Storage, located, place_of
from bulkembed.runs.plans import with_layouts
from bulkembed.runs.progress import Progress
from bulkembed.runs.recall import recipe_of
from bulkembed.runs.run import Summary, finish, lease_of
from bulkembed.upkeep import forget, gc, plan_gc, remember, tag, untag

__all__ = [
    "Estimate",
    "Feed",
    "Forgotten",
    "GcPlan",
    "Hit",
    "Plan",
    "Prices",
    "Progress",
    "RunConfig",
    "RunStatus",
    "Snapshot",
    "Summary",
    "Verification",
    "changes",
    "current",
    "files",
    "forget",
    "gc",
    "load_config",
    "open_dataset",
    "plan",
    "plan_gc",
    "publish",
    "remember",
    "repair",
    "retry_rejects",
    "rollback",
    "run",
    "search",
    "snapshots",
    "status",
    "tag",
    "untag",
    "verify",
]

LEASE_SECONDS = 60.0  # of a repair
OnProgress = Callable[[Progress], None]
OnPlan = Callable[["Plan"], None]

# A library prints nothing: without a handler, Python writes warnings of a logger to standard error.
logging.getLogger("bulkembed").addHandler(logging.NullHandler())


def load_config(*paths: Place, **keys: Any) -> RunConfig:
    """The configuration of TOML files. Later files override earlier ones, and `keys` override all; tables merge key by key.

    Raises ConfigError, in one line that names the key. `RunConfig(...)` itself raises pydantic's ValidationError."""
    return toml_files.load([Path(path) for path in paths], keys)


def plan(config: RunConfig) -> Plan:
    """Looks up the model, the source and what is there. It writes nothing.

    Raises ConfigError, SourceError, ModelError or HubError, and HeldBack where the source is empty."""
    job, work = open_job(config)
    return Plan(job, with_layouts(job, work))


def run(config: RunConfig | Plan, on_progress: OnProgress | None = None, on_plan: OnPlan | None = None) -> Summary:
    """Makes the dataset equal to the source, then publishes the snapshot. Running again resumes. A Plan saves looking everything up again.

    `on_progress` gets the counters after every shard, always the same object, in the caller's thread. `on_plan` gets the plan before
    anything is written, and a second time once all of the source is read, if that was too much to read while planning.
    The run uses the Ray of this process if there is one, else the cluster at `ray.address` or RAY_ADDRESS. Without these it starts a Ray of
    its own where there is something to embed, and ends it. A process runs one run at a time: a second thread waits, and `on_progress` must
    not start another run.

    Raises what `plan` raises; IncompleteError where shards failed (its `summary` says which), HeldBack where too many documents would
    leave the dataset, AlreadyRunning where another run writes to the line, LeaseLost where one has taken over, GateError, ClusterError,
    ResourceError, StorageError."""
    planned = config if isinstance(config, Plan) else Plan(*open_job(config))
    return finished(planned, on_progress, on_plan)


def finished(planned: Plan, on_progress: OnProgress | None, on_plan: OnPlan | None) -> Summary:
    """The summary of a run whose plan is known. It holds the lease of its line, unless nothing is to be written."""
    tell = on_plan or (lambda _plan: None)
    tell(planned)
    with ExitStack() as stack:
        job, work, held = planned.job, planned.work, None
        if not work.is_still and work.held_back is None:
            # A run within another one would wait for itself.
            with connect.no_run_within_another(), blaming_writes(job.cfg.output):
                held = stack.enter_context(lease_of(job))
            if held.waited or held.record.base != work.base.number:  # another run has published since it was planned
                job, work = open_job(job.cfg, work.asked.retried)
                tell(Plan(job, work))
        executor = OnDemand(job, stack)
        report = on_progress or (lambda _progress: None)
        summary = finish(job, work, report, executor, lambda job, work: tell(Plan(job, work)), held)
    summary.require_complete()
    return summary


def retry_rejects(
    config: RunConfig, reasons: Collection[str] = (), on_progress: OnProgress | None = None, on_plan: OnPlan | None = None
) -> Summary | None:
    """Embeds rejected documents again, after a fix. Returns None where none was rejected for such a reason: then nothing is done.

    `reasons`: only rejects for one of these; empty for all. Rows that the source itself spoils are rejected again by every run.
    `run_key` is not heeded: the run of that name has rejected them, or is still to come.
    Raises ConfigError where a reason does not exist, and what `run` raises."""
    if unknown := sorted(set(reasons) - set(REJECT_REASONS)):
        raise ConfigError(f"reason: rows are never rejected for {unknown[0]!r}; the reasons are {', '.join(REJECT_REASONS)}")
    job, work = open_job(config.model_copy(update={"run_key": None}), set(reasons) or set(REJECT_REASONS))
    return finished(Plan(job, work), on_progress, on_plan) if work.has_retries else None


def changes(
    uri: Place,
    feed: Place,
    from_snapshot: int,
    to_snapshot: int | None = None,
    *,
    vectors: FeedVectors = "stored",
    key: FeedKey = "none",
    storage: Storage | None = None,
) -> Feed:
    """Writes what leads from one snapshot to another, by default the current one, to the folder `feed`; docs/feed.md has its contract.

    Snapshot 0 is empty: from it, every row is an upsert. Raises SourceError where a snapshot is gone or both are of different lines,
    ConfigError where the folder holds something else, StorageError."""
    store, output = located(uri, storage)
    return write_feed(store, output, place_of("feed", feed), from_snapshot, to_snapshot, vectors, key)


def status(uri: Place, storage: Storage | None = None) -> list[RunStatus]:
    """The runs below an output, how far each has come, their newest snapshots, and which is current. Reads every receipt."""
    return list(status_of(*located(uri, storage)))


def search(
    uri: Place,
    query: str,
    k: int = 5,
    *,
    storage: Storage | None = None,
    prompt_name: str | None = None,
    instruction: str | None = None,
    model: str | None = None,
    engine: Literal["vllm", "simulated"] | None = None,
    snapshot: int | None = None,
) -> list[Hit]:
    """The `k` nearest rows of the current snapshot, or of this one, best first.

    Loads the dataset's model into this process, and reads every vector.
    `model`: where the model lies, if elsewhere than when the dataset was made. Raises SourceError, ModelError or ConfigError."""
    if k < 1:
        raise ConfigError(f"k: must be at least 1 (got {k})")
    if engine not in (None, "vllm", "simulated"):
        raise ConfigError(f"engine: must be vllm or simulated (got {engine!r})")
    store, output = located(uri, storage)
    return search_dataset(store, output, query, k, prompt_name, instruction, model, engine, snapshot)


def verify(
    uri: Place,
    *,
    storage: Storage | None = None,
    sample: int | None = None,
    source: Place | Sequence[Place] | None = None,
    model: str | None = None,
    seed: int = 0,
    on_problem: Callable[[str], None] | None = None,
    snapshot: int | None = None,
) -> Verification:
    """Reads the current snapshot again, or this one: bytes and rows against receipts and manifest, schemas, footers, vectors, current.txt.

    `sample`: so many random rows are embedded again from `source`, one place or several, and compared. `on_problem` gets each problem
    when it is found.
    Raises SourceError, ModelError or ConfigError; a problem of the data is no error."""
    if (sample is None) != (source is None):
        raise ConfigError("sample: needs the source, which is read with a sample alone")
    if sample is not None and sample < 1:
        raise ConfigError(f"sample: must be at least 1 (got {sample})")
    store, output = located(uri, storage)
    ledger, found = newest_dataset(store, output, snapshot)
    recipe_of(output, found)  # refuses a dataset of another version
    problems = list(told(problems_of(store, ledger, found), on_problem))
    again = None
    if sample is not None and source is not None:
        places = [source] if isinstance(source, str | PathLike) else source
        try:
            again = resample_dataset(store, output, found, [place_of("source", place) for place in places], model, sample, seed)
            problems += told(map(Problem, again.problems), on_problem)
        except StorageError as error:
            problems += told([Problem(f"sample: {error}")], on_problem)
    return verification(ledger, found, problems, again, plan_repair(ledger, problems), on_problem)


def repair(uri: Place, *, storage: Storage | None = None, on_problem: Callable[[str], None] | None = None) -> Verification:
    """Verifies the current dataset, and takes back what is damaged or lost in it, so that the next run of its line makes that again.

    It removes nothing that is right, and writes receipts and current.txt again where these are lost. Raises what `verify` raises, and
    AlreadyRunning where a run writes to the line."""
    store, output = located(uri, storage)
    _, found = newest_dataset(store, output)
    with lease(store, output, found.line, found.limited, LEASE_SECONDS, "fail"):
        ledger, found = newest_dataset(store, output)  # one may have been published meanwhile
        recipe_of(output, found)  # refuses a dataset of another version
        problems = list(told(problems_of(store, ledger, found), on_problem))
        done = take_back(ledger, found, problems)
    return verification(ledger, found, problems, None, done, on_problem)


def told(problems: Iterable[Problem], on_problem: Callable[[str], None] | None) -> Iterator[Problem]:
    """The problems, each told when it is found."""
    for problem in problems:
        if on_problem is not None:
            on_problem(problem.text)
        yield problem


def verification(
    ledger: Ledger,
    snapshot: Snapshot,
    problems: list[Problem],
    resample: Resample | None,
    mended: Repair,
    on_problem: Callable[[str], None] | None,
) -> Verification:
    leftovers = find_leftovers(ledger.store, ledger.output)
    if leftovers.fault and all(problem.text != leftovers.fault for problem in problems):
        problems = [*problems, *told([Problem(f"gc cannot work: {leftovers.fault}")], on_problem)]
    hopeless = sum(not problem.has_remedy for problem in problems)
    return Verification(snapshot, [problem.text for problem in problems], resample, mended, hopeless, leftovers)
