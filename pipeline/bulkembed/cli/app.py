"""The command line: bulkembed plan | run | retry-rejects | tune | status | verify | files | search | check.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkembed import __version__, stopping
from bulkembed.cli import dataset_commands
from bulkembed.cli.console import Discreet, err, out, tolerate
from bulkembed.cli.options import ApiPrice, Command, HourPrice, Output, Rate, StorageOption, configured, storage_of
from bulkembed.config.credentials import concealed
from bulkembed.config.refusals import setting_texts
from bulkembed.errors import BulkembedError, ConfigError, InterruptedRun

if TYPE_CHECKING:
    from bulkembed.config.run_config import RunConfig
    from bulkembed.runs.estimate import Prices
    from bulkembed.runs.progress import Progress
    from bulkembed.runs.run import Engine

app = typer.Typer(
    help="Turn a corpus in object storage into a dataset of embedding vectors in object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes the brackets of [default: ...] for markup, and shows nothing
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dataset_commands.app)

log = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 5.0  # of progress, where there is no terminal


@app.command(cls=Command)
@configured
def plan(cfg: "RunConfig", tokens_per_second: Rate = None, price_per_hour: HourPrice = None, api_price: ApiPrice = None) -> None:
    """Show what a run would do: objects, shards, rows, what is done already, and an estimate of tokens."""
    from bulkembed.runs.estimate import Prices

    show_plan(cfg, Prices(tokens_per_second, price_per_hour, api_price))


def show_plan(cfg: "RunConfig", prices: "Prices") -> None:
    from bulkembed.report import plain_text
    from bulkembed.runs.run import open_job

    prices.check()
    job, planned = open_job(cfg)
    out.print(plain_text.plan_text(job, planned), markup=False)
    out.print(plain_text.estimate_text(job, planned, prices), markup=False)
    if planned.failures:
        raise typer.Exit(1)


@app.command(cls=Command)
@configured
def run(
    cfg: "RunConfig",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As `plan`: show and estimate; write nothing.")] = False,
    tokens_per_second: Rate = None,
    price_per_hour: HourPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Embed everything that has no receipt yet, then publish the snapshot. Running again resumes."""
    from bulkembed.runs.estimate import Prices

    prices = Prices(tokens_per_second, price_per_hour, api_price)
    if dry_run:
        show_plan(cfg, prices)
    elif prices != Prices():
        raise ConfigError("--tokens-per-second, --price-per-hour and --api-price belong to an estimate: give --dry-run, or use plan")
    else:
        embed(cfg)


@app.command(cls=Command)
@configured
def retry_rejects(
    cfg: "RunConfig",
    reason: Annotated[list[str] | None, typer.Option(help="Only shards with rejects for this reason; repeatable. [default: any]")] = None,
) -> None:
    """Embed anew the shards that have rejects, after a fix: same flags as the run that rejected them."""
    from bulkembed.runs import calibration
    from bulkembed.runs.publication import require_retryable
    from bulkembed.runs.run import open_job

    job, planned = open_job(cfg)
    require_retryable(planned)  # before any receipt is taken back
    if job.needs_ranges:
        out.print("its int8 ranges are to be measured first: `bulkembed run` makes every row anew, rejects too")
        return
    found = job.ledger.with_rejects(planned.done, set(reason or []))
    if not found:
        out.print("no shard of this run has such rejects")
        return
    out.print(f"{len(found):,} shards with {sum(each.counts.rejects for each in found):,} rejects are embedded anew")
    calibration.withdraw(job)
    for receipt in found:
        job.ledger.forget(receipt.shard)
    embed(cfg)


@app.command(name="tune", cls=Command)
@partial(configured, output="none")
def tune_engine(
    cfg: "RunConfig",
    seconds: Annotated[float, typer.Option("--budget", min=1, help="Seconds that it may take, about.")] = 600,
    documents: Annotated[int, typer.Option(min=1, help="Of the source, as a sample.")] = 2000,
    write: Annotated[Path | None, typer.Option(help="Where the [engine] table goes, for --config. [default: shown only]")] = None,
) -> None:
    """Measure engine settings on this host with a sample of the source."""
    from bulkembed.report import plain_text
    from bulkembed.tuning import search, session

    if write is not None and (write.exists() or not write.parent.is_dir()):
        raise ConfigError(f"--write {write}: is there already, or its folder is not; name another file")
    os.environ.pop("RAY_ADDRESS", None)  # of this host, not of a cluster that it may belong to
    trials = []
    with out.status("measuring"), session.host(cfg, documents) as host:
        out.print(f"{len(host.documents):,} documents, about {seconds:g} s; tokens/s of this host, over those as configured:", markup=False)
        for trial in host.trials(seconds):
            trials.append(trial)
            out.print(plain_text.trial_text(trial, trials[0].rate), markup=False)
    if not trials[0].rate:
        raise BulkembedError(f"engine: nothing could be measured: {trials[0].problem}")
    first, best = search.best_of(trials)
    out.print(plain_text.tuned_text(trials, first, best, search.untried(host.axes, trials)), markup=False)
    table = search.toml(best.changes)
    if write is not None:
        write.write_text(table, encoding="utf-8")
    out.print(f"\n{table}", markup=False)


def embed(cfg: "RunConfig") -> None:
    from bulkembed.report import plain_text
    from bulkembed.runs.publication import require_allowed
    from bulkembed.runs.run import finish, open_job

    started = time.monotonic()
    job, planned = open_job(cfg)
    out.print(plain_text.plan_text(job, planned), markup=False)
    require_allowed(job, planned)
    from bulkembed.cluster import backlog, connect, ray_executor

    with out.status("starting Ray and loading the model") as status, ExitStack() as stack:
        show = shower(status, time.monotonic())
        engine: Engine | None = None
        if planned.pending:
            if not out.is_terminal:
                out.print("starting Ray and loading the model")
            stopping.stop.check()
            inherited = connect.connect(job.cfg.ray, job)
            stack.callback(connect.disconnect)
            stopping.stop.check()
            engine = stack.enter_context(ray_executor.engine(job, backlog.engines_for(planned.pending), inherited))
        summary = finish(job, planned, show, engine)
    out.print(plain_text.summary_text(summary.job, summary, time.monotonic() - started), markup=False)
    summary.require_complete()


def shower(status: Any, last: float) -> Callable[["Progress"], None]:
    """Shows progress: one live line on a terminal, else a line now and then."""
    from bulkembed.report import plain_text

    def show(progress: "Progress") -> None:
        nonlocal last
        line = plain_text.progress_text(progress)
        if out.is_terminal:
            status.update(line)
        elif time.monotonic() - last >= LINE_EVERY_SECONDS or progress.counts.rows == progress.rows_total:
            out.print(line, markup=False)
            last = time.monotonic()

    return show


@app.command(cls=Command)
def status(output: Output, settings: StorageOption = None) -> None:
    """Show the runs below an output: shards done, documents, rejects, tokens, and which is live."""
    from bulkembed.report import plain_text

    out.print(plain_text.status_text(storage_of(settings), output), markup=False)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every error a user can cause is one line on stderr, and an exit code."""
    level = os.environ.get("BULKEMBED_LOG", "warning").upper()
    shown = logging.StreamHandler()
    shown.setFormatter(Discreet("%(message)s"))
    logging.basicConfig(level=level if level in logging.getLevelNamesMapping() else "WARNING", handlers=[shown])
    concealed.add(list(setting_texts(sys.argv[1:] if arguments is None else arguments)))
    tolerate()
    try:
        code = app(arguments, standalone_mode=False)
    except (BulkembedError, InterruptedRun) as error:
        code = said(error)
    except typer.Exit as leaving:
        code = leaving.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):  # a mistake on the command line
            code = shown_mistake(error)
        elif stopping.stop.signal:  # Ray's processes may have had the same signal, and be gone
            log.debug("", exc_info=error)
            code = said(InterruptedRun(stopping.stop.signal))
        else:
            err.print(concealed.hide(traceback.format_exc()), markup=False)
            code = 1
    sys.exit(code if isinstance(code, int) else 0)


def shown_mistake(error: Any) -> int:
    """Prints an error of click's; its exit code."""
    error.message = concealed.hide(error.message)
    error.show()
    return 2


def said(error: BulkembedError | InterruptedRun) -> int:
    """Prints the one line of an error; its exit code."""
    log.debug("", exc_info=error)
    if not isinstance(error, InterruptedRun) or stopping.stop.last_word.acquire(blocking=False):
        err.print(f"bulkembed: {concealed.hide(str(error))}", markup=False)
    return error.exit_code
