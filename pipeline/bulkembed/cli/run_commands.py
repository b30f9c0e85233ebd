"""Commands that embed: plan, run, retry-rejects."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkembed import stopping
from bulkembed.cli.console import out
from bulkembed.cli.options import ApiPrice, HourPrice, Rate, RunCommand, takes_run_keys
from bulkembed.errors import ConfigError

if TYPE_CHECKING:
    from bulkembed.config.run_config import RunConfig
    from bulkembed.runs.estimate import Prices
    from bulkembed.runs.executor import Executor
    from bulkembed.runs.progress import Progress

app = typer.Typer()

LINE_EVERY_SECONDS = 5.0  # of progress, where there is no terminal


@app.command(cls=RunCommand)
@takes_run_keys
def plan(cfg: "RunConfig", tokens_per_second: Rate = None, price_per_hour: HourPrice = None, api_price: ApiPrice = None) -> None:
    """Show what a run would do: objects, shards, rows, what is done already, and an estimate of tokens."""
    from bulkembed.runs.estimate import Prices

    show_plan(cfg, Prices(tokens_per_second, price_per_hour, api_price))


def show_plan(cfg: "RunConfig", prices: "Prices") -> None:
    from bulkembed.report import estimate_text, run_text
    from bulkembed.runs.lookup import open_job

    prices.check()
    job, planned = open_job(cfg)
    out.print(run_text.plan_text(job, planned), markup=False)
    out.print(estimate_text.estimate_text(job, planned, prices), markup=False)
    if planned.failures:
        raise typer.Exit(1)


@app.command(cls=RunCommand)
@takes_run_keys
def run(
    cfg: "RunConfig",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show and estimate as `plan` does; write nothing.")] = False,
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


@app.command(cls=RunCommand)
@takes_run_keys
def retry_rejects(
    cfg: "RunConfig",
    reason: Annotated[
        list[str] | None, typer.Option(metavar="<string>", help="Only shards with rejects for this reason. Repeatable. [default: any]")
    ] = None,
) -> None:
    """Embed anew the shards that have rejects, after a fix: same flags as the run that rejected them."""
    from bulkembed.runs import calibration
    from bulkembed.runs.lookup import open_job
    from bulkembed.runs.publication import require_retryable

    job, planned = open_job(cfg)
    require_retryable(planned)  # before any receipt is taken back
    if job.needs_int8_ranges:
        out.print("its int8 ranges are to be measured first: `bulkembed run` makes every row anew, rejects too")
        return
    found = job.ledger.receipts_with_rejects(planned.done, set(reason or []))
    if not found:
        out.print("no shard of this run has such rejects")
        return
    out.print(f"{len(found):,} shards with {sum(each.counts.rejects for each in found):,} rejects are embedded anew")
    calibration.withdraw(job)
    for receipt in found:
        job.ledger.forget(receipt.shard)
    embed(cfg)


def embed(cfg: "RunConfig") -> None:
    from bulkembed.report import run_text
    from bulkembed.runs.lookup import open_job
    from bulkembed.runs.publication import require_allowed
    from bulkembed.runs.run import finish

    started = time.monotonic()
    job, planned = open_job(cfg)
    out.print(run_text.plan_text(job, planned), markup=False)
    require_allowed(job, planned)
    from bulkembed.cluster import connect
    from bulkembed.cluster.backlog import useful_actors
    from bulkembed.cluster.ray_executor import ray_executor

    with out.status("starting Ray and loading the model") as status, ExitStack() as stack:
        show = shower(status, time.monotonic())
        executor: Executor | None = None
        if planned.pending:
            if not out.is_terminal:
                out.print("starting Ray and loading the model")
            stopping.stop.check()
            inherited = stack.enter_context(connect.session(job.cfg.ray, job))
            executor = stack.enter_context(ray_executor(job, useful_actors(planned.pending), inherited))
        summary = finish(job, planned, show, executor)
    out.print(run_text.summary_text(summary.job, summary, time.monotonic() - started), markup=False)
    summary.require_complete()


def shower(status: Any, last: float) -> Callable[["Progress"], None]:
    """Shows progress: one live line on a terminal, else a line now and then."""
    from bulkembed.report import run_text

    def show(progress: "Progress") -> None:
        nonlocal last
        line = run_text.progress_text(progress)
        if out.is_terminal:
            status.update(line)
        elif time.monotonic() - last >= LINE_EVERY_SECONDS or progress.counts.rows == progress.rows_total:
            out.print(line, markup=False)
            last = time.monotonic()

    return show
