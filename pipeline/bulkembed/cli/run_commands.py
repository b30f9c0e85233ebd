"""Commands that embed: plan, run, reindex, retry-rejects."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkembed.cli.console import out
from bulkembed.cli.last_line import Call
from bulkembed.cli.options import RUN_KEYS, ApiPrice, HourPrice, Rate, RunCommand, takes_run_keys
from bulkembed.errors import BulkembedError, ConfigError, IncompleteError

if TYPE_CHECKING:
    from bulkembed.api import Plan
    from bulkembed.config.run_config import RunConfig
    from bulkembed.report.run_json import Seen
    from bulkembed.runs.estimate import Prices
    from bulkembed.runs.progress import Progress
    from bulkembed.runs.run import Summary

app = typer.Typer()

STARTING = "starting Ray and loading the model"
AsJson = Annotated[
    bool,
    typer.Option("--json", help="End with one line of JSON on standard output, however the run ends. All else goes to standard error."),
]
NOT_RETRIED = {"run_key"}  # a retry is no repeat of the run of that name
RETRY_KEYS = [key for key in RUN_KEYS if key not in NOT_RETRIED]
LINE_EVERY_SECONDS = 5.0  # between progress lines, where there is no terminal


@app.command(cls=RunCommand)
@takes_run_keys
def plan(
    cfg: "RunConfig",
    context: typer.Context,
    tokens_per_second: Rate = None,
    price_per_hour: HourPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Show what a run would do, and estimate tokens and cost. It writes nothing."""
    from bulkembed.runs.estimate import Prices

    show_plan(cfg, Prices(tokens_per_second, price_per_hour, api_price), Call.of(context))


def show_plan(cfg: "RunConfig", prices: "Prices", call: Call) -> None:
    from bulkembed import api

    prices.check()
    planned = api.plan(cfg)
    if call.wants_json:
        planned = planned.exact()
    call.seen.begin(planned.job, planned.work)
    out.print(str(planned), markup=False)
    show_estimate(planned, prices)
    if planned.failures and not cfg.skip_unreadable:
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
    context: typer.Context,
    _as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show and estimate as `plan` does; write nothing.")] = False,
    tokens_per_second: Rate = None,
    price_per_hour: HourPrice = None,
    api_price: ApiPrice = None,
) -> None:
    """Embed what is new by content, then publish a snapshot. Running again resumes."""
    from bulkembed.runs.estimate import Prices

    prices, call = Prices(tokens_per_second, price_per_hour, api_price), Call.of(context)
    call.seen.is_dry = dry_run
    if dry_run:
        show_plan(cfg, prices, call)
    elif prices != Prices():
        raise ConfigError("--tokens-per-second, --price-per-hour and --api-price belong to an estimate: give --dry-run, or use plan")
    else:
        from bulkembed import api

        embed(lambda on_progress, on_plan: api.run(cfg, on_progress, on_plan), call.seen)


@app.command(cls=RunCommand)
@takes_run_keys
def reindex(
    cfg: "RunConfig",
    context: typer.Context,
    _as_json: AsJson = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Then run once more, for what has changed meanwhile, and make the new line current.")
    ] = False,
) -> None:
    """Embed by another recipe, beside the current dataset.

    Readers keep the current one until the new line is published: by --publish, or later by `bulkembed publish`."""
    from bulkembed import api

    seen = Call.of(context).seen
    summary = embed(lambda on_progress, on_plan: api.run(cfg, on_progress, on_plan), seen)
    if publish:
        again = cfg.model_copy(update={"run_key": None})  # a repeat of its run key would do nothing
        summary = embed(lambda on_progress, on_plan: api.run(again, on_progress, on_plan), seen)
        switch(cfg, summary, seen)


def switch(cfg: "RunConfig", summary: "Summary | None", seen: "Seen") -> None:
    """Makes the line of a run current."""
    from bulkembed import api

    if summary is None or summary.snapshot is None:
        raise IncompleteError("nothing was switched: there is no snapshot of the new line", summary)
    number = summary.snapshot.number
    current = api.publish(cfg.output, number, cfg.storage, max_deletes=cfg.max_deletes, allow_deletes=cfg.allow_deletes)
    seen.current = current.number == number
    out.print(f"current: snapshot {current.number}: {current.documents:,} documents")


@app.command(cls=RunCommand)
@partial(takes_run_keys, keys=RETRY_KEYS, idle=NOT_RETRIED)
def retry_rejects(
    cfg: "RunConfig",
    context: typer.Context,
    reason: Annotated[
        list[str] | None,
        typer.Option(metavar="<string>", help="Only documents that were rejected for this reason. Repeatable. [default: any]"),
    ] = None,
) -> None:
    """Embed rejected documents again, after a fix. Takes the same options as the run that rejected them, but --run-key."""
    from bulkembed import api

    summary = embed(lambda on_progress, on_plan: api.retry_rejects(cfg, reason or (), on_progress, on_plan), Call.of(context).seen)
    if summary is None:
        out.print("no document of this dataset was rejected for such a reason; rows that the source spoils are rejected by every run")


def embed(run: "Callable[..., Summary | None]", seen: "Seen") -> "Summary | None":
    """Runs, and shows the plan, the progress and the summary. The summary is shown also where shards failed."""
    started = time.monotonic()
    try:
        with out.status(STARTING) as status:
            summary = run(progress_printer(status, time.monotonic(), seen), plan_printer(seen))
    except IncompleteError as error:
        if error.summary is not None:
            show_summary(error.summary, time.monotonic() - started, seen)
        raise
    if summary is not None:
        show_summary(summary, time.monotonic() - started, seen)
    return summary


def show_summary(summary: "Summary", seconds: float, seen: "Seen") -> None:
    from bulkembed.report import run_text

    seen.end(summary, summary.is_current)
    out.print(run_text.summary_text(summary.job, summary, seconds), markup=False)


def plan_printer(seen: "Seen") -> Callable[["Plan"], None]:
    """A function that shows a plan."""

    def show(planned: "Plan") -> None:
        seen.begin(planned.job, planned.work)
        out.print(str(planned), markup=False)
        if planned.shards_pending and not planned.held_back and not out.is_terminal:
            out.print(STARTING)

    return show


def progress_printer(status: Any, last: float, seen: "Seen") -> Callable[["Progress"], None]:
    """A function that shows progress: a live line on a terminal, otherwise a line every few seconds."""
    from bulkembed.report import run_text

    def show(progress: "Progress") -> None:
        nonlocal last
        seen.progress = progress
        line = run_text.progress_text(progress)
        if out.is_terminal:
            status.update(line)
        elif time.monotonic() - last >= LINE_EVERY_SECONDS or progress.counts.rows == progress.rows_total:
            out.print(line, markup=False)
            last = time.monotonic()

    return show
