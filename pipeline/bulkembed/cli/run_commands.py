"""Commands that embed: plan, run, retry-rejects."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkembed.cli.console import out
from bulkembed.cli.options import ApiPrice, HourPrice, Rate, RunCommand, takes_run_keys
from bulkembed.errors import BulkembedError, ConfigError, IncompleteError

if TYPE_CHECKING:
    from bulkembed.api import Plan
    from bulkembed.config.run_config import RunConfig
    from bulkembed.runs.estimate import Prices
    from bulkembed.runs.progress import Progress

app = typer.Typer()

STARTING = "starting Ray and loading the model"
LINE_EVERY_SECONDS = 5.0  # between progress lines, where there is no terminal


@app.command(cls=RunCommand)
@takes_run_keys
def plan(cfg: "RunConfig", tokens_per_second: Rate = None, price_per_hour: HourPrice = None, api_price: ApiPrice = None) -> None:
    """Show what a run would do, and estimate tokens and cost. It writes nothing."""
    from bulkembed.runs.estimate import Prices

    show_plan(cfg, Prices(tokens_per_second, price_per_hour, api_price))


def show_plan(cfg: "RunConfig", prices: "Prices") -> None:
    from bulkembed import api

    prices.check()
    planned = api.plan(cfg)
    out.print(str(planned), markup=False)
    show_estimate(planned, prices)
    if planned.failures:
        raise typer.Exit(1)


def show_estimate(planned: "Plan", prices: "Prices") -> None:
    from bulkembed.report import estimate_text, formatting

    try:
        text = estimate_text.estimate_text(planned.job, planned.work, planned.estimate(prices))
    except BulkembedError as error:
        text = formatting.lines([("estimate", f"unknown: {error}")])
    out.print(text, markup=False)


@app.command(cls=RunCommand)
@takes_run_keys
def run(
    cfg: "RunConfig",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show and estimate as `plan` does; write nothing.")] = False,
    tokens_per_second: Rate = None,
    price_per_hour: HourPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Embed what has no receipt yet, then publish a snapshot. Running again resumes."""
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
    """Embed shards with rejects again, after a fix. Takes the same options as the run that rejected the rows."""
    from bulkembed import api

    planned = api.plan(cfg)
    receipts = planned.take_back_rejects(reason or ())
    if receipts:
        rejects = sum(receipt.counts.rejects for receipt in receipts)
        out.print(f"shards to embed again: {len(receipts):,}, with {rejects:,} rejects")
        embed(cfg)
    elif planned.job.needs_int8_ranges:
        out.print("its int8 ranges are to be measured first: `bulkembed run` makes every row anew, rejects too")
    else:
        out.print("no shard of this run has such rejects")


def embed(cfg: "RunConfig") -> None:
    """Runs, and shows the plan, the progress and the summary. The summary is shown also where shards failed."""
    from bulkembed import api
    from bulkembed.report import run_text

    started = time.monotonic()
    planned = api.plan(cfg)
    out.print(str(planned), markup=False)
    try:
        with out.status(STARTING) as status:
            if planned.shards_pending and not planned.held_back and not out.is_terminal:
                out.print(STARTING)
            summary = api.run(planned, progress_printer(status, time.monotonic()))
    except IncompleteError as error:
        if error.summary is not None:
            out.print(run_text.summary_text(error.summary.job, error.summary, time.monotonic() - started), markup=False)
        raise
    out.print(run_text.summary_text(summary.job, summary, time.monotonic() - started), markup=False)


def progress_printer(status: Any, last: float) -> Callable[["Progress"], None]:
    """A function that shows progress: a live line on a terminal, otherwise a line every few seconds."""
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
