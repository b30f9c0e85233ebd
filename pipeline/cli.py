"""The command line: bulkembed plan | run | status | verify | search | check.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.errors import BulkembedError, ConfigError, GateError, InterruptedRun
from pipeline.flags import (
    Dims,
    Dtype,
    Instruction,
    Prompt,
    PromptName,
    Revision,
    Settings,
    Untrained,
    Vectors,
    configured,
    load_config,
    parse_setting,
)

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.metrics import Progress
    from pipeline.run import Engine, Stop
    from pipeline.storage import Store
    from pipeline.verify import Resample

app = typer.Typer(
    help="Turn a corpus in object storage into a dataset of embedding vectors in object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

log = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 5.0  # of progress, where there is no terminal
Output = Annotated[str, typer.Option(help="Where a run has written its dataset.")]
Elsewhere = Annotated[str | None, typer.Option("--model", help="Where the dataset's model lies on this machine, if elsewhere.")]
StorageOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other key of the configuration, as in --set storage.anon=true.")
]


@app.command()
@configured
def plan(cfg: "RunConfig") -> None:
    """Show what a run would do: objects, shards, rows, bytes, and what is done already."""
    from pipeline import report
    from pipeline.run import open_job

    job, planned = open_job(cfg)
    out.print(report.plan_text(job, planned), markup=False)
    if planned.failures:
        raise typer.Exit(1)


@app.command()
@configured
def run(
    cfg: "RunConfig", dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, tokenize one shard, estimate; write nothing.")] = False
) -> None:
    """Embed everything that has no receipt yet, then publish the snapshot. Running again resumes."""
    embed(cfg, dry_run)


@app.command()
@configured
def retry_rejects(
    cfg: "RunConfig",
    reason: Annotated[list[str] | None, typer.Option(help="Only shards with rejects for this reason; repeatable. [default: any]")] = None,
) -> None:
    """Embed anew the shards that have rejects, after a fix: same flags as the run that rejected them."""
    from pipeline.run import open_job

    job, planned = open_job(cfg)
    found = job.ledger.with_rejects(planned.done, set(reason or []))
    if not found:
        out.print("no shard of this run has such rejects")
        return
    out.print(f"{len(found):,} shards with {sum(each.counts.rejects for each in found):,} rejects are embedded anew")
    for receipt in found:
        job.ledger.forget(receipt.shard)
    embed(cfg)


def embed(cfg: "RunConfig", dry_run: bool = False) -> None:
    from pipeline import report
    from pipeline.run import Stop, finish, open_job

    job, planned = open_job(cfg)
    out.print(report.plan_text(job, planned), markup=False)
    if dry_run:
        out.print(report.estimate_text(job, planned), markup=False)
        raise typer.Exit(1 if planned.failures else 0)
    from pipeline import cluster, dataflow

    stop = Stop(cfg.grace_seconds)
    with out.status("starting Ray and loading the model") as status, ExitStack() as stack:
        show = shower(status, time.monotonic())
        engine: Engine | None = None
        if planned.pending:
            if not out.is_terminal:
                out.print("starting Ray and loading the model")
            cluster.connect(job.cfg.ray)
            stack.callback(cluster.disconnect)
            catch_signals()  # Ray has set handlers of its own
            engine = stack.enter_context(dataflow.engine(job, len(planned.pending), stop))
            catch_signals(stop)
        summary = finish(job, planned, show, engine, stop)
    out.print(report.summary_text(job, summary), markup=False)
    summary.require_complete()


def shower(status: Any, last: float) -> Callable[["Progress"], None]:
    """Shows progress: one live line on a terminal, else a line now and then."""
    from pipeline import report

    def show(progress: "Progress") -> None:
        nonlocal last
        line = report.progress_text(progress)
        if out.is_terminal:
            status.update(line)
        elif time.monotonic() - last >= LINE_EVERY_SECONDS or progress.shards == progress.shards_total:
            out.print(line, markup=False)
            last = time.monotonic()

    return show


@app.command()
def status(output: Output, settings: StorageOption = None) -> None:
    """Show the runs below an output: shards done, documents, rejects, tokens, and which is live."""
    from pipeline import report

    out.print(report.status_text(storage_of(settings), output), markup=False)


@app.command()
def verify(
    output: Output,
    sample: Annotated[int | None, typer.Option(min=1, help="Embed N random rows again and compare; needs --source.")] = None,
    source: Annotated[str | None, typer.Option(help="The documents that the dataset was made of.")] = None,
    model: Elsewhere = None,
    seed: Annotated[int, typer.Option(help="Of the choice of rows.")] = 0,
    settings: StorageOption = None,
) -> None:
    """Re-read the newest dataset: files, rows against receipts, schemas, footers, vectors."""
    from pipeline import report
    from pipeline.ledger import dataset
    from pipeline.verify import verify as problems_of

    if (sample is None) != (source is None):
        raise ConfigError("sample: --sample N and --source URI go together")
    store = storage_of(settings)
    ledger, snapshot = dataset(store, output)
    problems = 0
    for problem in problems_of(store, ledger, snapshot):
        problems += 1
        err.print(problem, markup=False)
    if sample and source:
        found = embedded_again(store, output, source, sample, model, seed)
        out.print(report.resample_text(found), markup=False)
        for problem in found.problems:
            problems += 1
            err.print(problem, markup=False)
    if problems:
        raise BulkembedError(f"snapshot {snapshot.number} of {output}: {problems} problems")
    out.print(f"snapshot {snapshot.number}: {len(snapshot.shards)} files, {snapshot.documents:,} documents, all as their receipts say")


def embedded_again(store: "Store", output: str, source: str, rows: int, model: str | None, seed: int) -> "Resample":
    from pipeline import here, manifest
    from pipeline.ledger import dataset
    from pipeline.run import recalled_job
    from pipeline.search import dataset_model
    from pipeline.verify import resample

    snapshot = dataset(store, output)[1]
    described = dataset_model(snapshot, model)
    job = recalled_job(store, output, source, snapshot, described)
    objects = manifest.source_objects(store, source)
    with here.quiet():
        return resample(job, snapshot, objects, here.load(described, job.cfg.max_tokens or 0, job.cfg.engine), rows, seed)


@app.command()
def search(
    output: Output,
    query: Annotated[str, typer.Option(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    prompt_name: PromptName = None,
    instruction: Instruction = None,
    model: Elsewhere = None,
    engine: Annotated[str | None, typer.Option(help="vllm or simulated. [default: the dataset's own]")] = None,
    settings: StorageOption = None,
) -> None:
    """Search the newest dataset with its own model and query prompt (reads every vector)."""
    from pipeline import here, report
    from pipeline.config import EngineConfig
    from pipeline.ledger import dataset
    from pipeline.search import dataset_model, query_prompt, query_vector
    from pipeline.search import search as nearest
    from pipeline.stages import tokenizer

    store = storage_of(settings)
    ledger, snapshot = dataset(store, output)
    made_with = snapshot.provenance
    described = dataset_model(snapshot, model)
    prompt = query_prompt(described, prompt_name, instruction)
    chosen = EngineConfig.model_validate({"kind": engine or made_with["engine_kind"], "dtype": made_with["engine_dtype"]})
    max_tokens = int(made_with["max_tokens"])
    with here.quiet():
        loaded = here.load(described, max_tokens, chosen)
        vector = query_vector(snapshot, tokenizer(described, max_tokens), loaded, query, prompt)
    out.print(report.hits_text(nearest(store, ledger, snapshot, vector, k)), markup=False)


@app.command()
def check(
    model: Annotated[str, typer.Option(help="Hub name, or folder.")],
    revision: Revision = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also against sentence-transformers and transformers, in float32 on the CPU.")
    ] = False,
    dims: Dims = None,
    dtype: Dtype = None,
    vectors: Vectors = None,
    allow_untrained_dims: Untrained = False,
    max_tokens: Annotated[int | None, typer.Option(help="Of a document. [default: the model's; with --reference at most 512]")] = None,
    prompt: Prompt = None,
    prompt_name: PromptName = None,
    instruction: Instruction = None,
    settings: Settings = None,
) -> None:
    """Load a model on this machine and check its vectors, as every run does before its first shard."""
    from pipeline import gate, here, report, stages
    from pipeline import reference as others
    from pipeline.model import describe, locate

    flags = {"dims": dims, "dtype": dtype, "vectors": vectors, "allow_untrained_dims": allow_untrained_dims, "max_tokens": max_tokens}
    flags |= {"prompt": prompt, "prompt_name": prompt_name, "instruction": instruction}
    cfg = load_config(None, settings, source="none", output="none", model=model, revision=revision, **flags)
    described = describe(model, revision)
    if reference and max_tokens is None:
        cfg = cfg.model_copy(update={"max_tokens": min(described.max_tokens, others.MAX_TOKENS)})
    cfg = cfg.resolve(described)
    tokenizer = stages.tokenizer(described, cfg.max_tokens or 0)
    with here.quiet():
        embedder = here.load(described, cfg.max_tokens or 0, cfg.engine)
        checks = list(gate.examine(described, cfg, tokenizer, embedder))
        if reference:
            path = str(locate(model, revision, weights=True))
            for library in others.LIBRARIES:
                checks += others.compare(library, path, described, cfg, tokenizer, embedder)
    out.print(report.checks_text(described, cfg, embedder.version, checks), markup=False)
    failed = [each.name for each in checks if not each.passed]
    if failed:
        raise GateError(f"model: {model} fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}")


def storage_of(settings: list[str] | None) -> "Store":
    from pipeline.storage import Store

    values: dict[str, Any] = {}
    for setting in settings or []:
        values |= parse_setting(setting).get("storage", {})
    return Store(values)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def catch_signals(stop: "Stop | None" = None) -> None:
    """Without `stop` a signal ends the program where it is; with it, the run looks at `stop` itself: an exception
    in the midst of a call into Ray would end as one of Ray's."""

    def interrupt(number: int, _frame: object) -> None:
        if stop is None:
            raise InterruptedRun(number)
        if not stop.signal:
            err.print(f"bulkembed: stopping: shards in flight have {stop.grace_seconds:g} s to be published; once more to stop at once")
        stop.request(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every error a user can cause is one line on stderr, and an exit code."""
    level = os.environ.get("BULKEMBED_LOG", "warning").upper()
    logging.basicConfig(level=level if level in logging.getLevelNamesMapping() else "WARNING", format="%(message)s")
    catch_signals()
    try:
        code = app(arguments, standalone_mode=False)
    except BulkembedError as error:
        log.debug("", exc_info=error)
        err.print(f"bulkembed: {error}", markup=False)
        code = error.exit_code
    except typer.Exit as leaving:
        code = leaving.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):  # a mistake on the command line
            error.show()  # type: ignore[attr-defined]
            code = 2
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)
