"""The command line: bulkembed plan | run | status | verify | search.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import functools
import inspect
import logging
import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.errors import BulkembedError, ConfigError, InterruptedRun

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.metrics import Progress

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
StorageOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other key of the configuration, as in --set storage.anon=true.")
]


def run_options(
    config: Annotated[Path | None, typer.Option(help="TOML file with the keys below; flags override it.")] = None,
    source: Annotated[str | None, typer.Option(help="Documents: a URI, prefix or glob of .parquet, .jsonl[.gz|.zst].")] = None,
    output: Annotated[str | None, typer.Option(help="Where the dataset goes: a URI of its own.")] = None,
    model: Annotated[str | None, typer.Option(help="Hub name, or folder with safetensors and sentence-transformers files.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that names a document. [default: id]")] = None,
    text_column: Annotated[list[str] | None, typer.Option(help="Column to embed; several need --template. [default: text]")] = None,
    template: Annotated[str | None, typer.Option(help=r'Joins text columns, as "{title}\n\n{body}".')] = None,
    keep_column: Annotated[list[str] | None, typer.Option(help="Column to carry into the output.")] = None,
    dims: Annotated[str | None, typer.Option(help="Matryoshka dimensions, main one first, as 1024,256. [default: the model's]")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the vectors: float32 or float16. [default: float32]")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longer documents are truncated. [default: what the model takes]")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text before every document. [default: the model's own]")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N rows of the source.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key, as in --set engine.step_tokens=4096.")
    ] = None,
) -> None:
    """The flags that `plan` and `run` share; None where not given."""


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags of `run_options` and hands it the RunConfig they make."""
    shared = inspect.signature(run_options).parameters
    own = dict(list(inspect.signature(command).parameters.items())[1:])

    @functools.wraps(command)
    def wrapped(**flags: Any) -> None:
        mine = {name: flags.pop(name) for name in own}
        command(load_config(**flags), **mine)

    wrapped.__signature__ = inspect.Signature([*shared.values(), *own.values()])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: parameter.annotation for name, parameter in (shared | own).items()}
    return wrapped


def load_config(config: Path | None, settings: list[str] | None, **flags: Any) -> "RunConfig":
    from pipeline.config import load, merge

    renamed = {"text_column": "text_columns", "keep_column": "keep_columns"}
    overrides = {renamed.get(name, name): value for name, value in flags.items() if value not in (None, [])}
    if "dims" in overrides:
        try:
            overrides["dims"] = [int(part) for part in overrides["dims"].split(",")]
        except ValueError:
            raise ConfigError(f"dims: expected numbers such as 1024,256 (got {overrides['dims']!r})") from None
    for setting in settings or []:
        overrides = merge(overrides, parse_setting(setting))
    return load(config, overrides)


def parse_setting(setting: str) -> dict[str, Any]:
    """`engine.step_tokens=4096` as a table; a value that is not TOML is taken as text."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected KEY=VALUE")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    try:
        return tomllib.loads(f'{key} = "{quoted}"')
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"--set {setting}: {key!r} is not a key") from None


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
    from pipeline import report
    from pipeline.run import finish, open_job

    job, planned = open_job(cfg)
    out.print(report.plan_text(job, planned), markup=False)
    if dry_run:
        out.print(report.estimate_text(job, planned), markup=False)
        raise typer.Exit(1 if planned.failures else 0)
    from pipeline import dataflow

    with out.status("starting Ray and loading the model") as status:
        show = shower(status, time.monotonic())
        if planned.pending:
            if not out.is_terminal:
                out.print("starting Ray and loading the model")
            dataflow.connect(job.cfg.ray)
            catch_signals()  # Ray has set handlers of its own
        try:
            summary = finish(job, planned, show, dataflow.run)
        finally:
            if planned.pending:
                dataflow.disconnect()
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

    out.print(report.status_text(*storage_of(settings), output), markup=False)


@app.command()
def verify(output: Output, settings: StorageOption = None) -> None:
    """Re-read the newest dataset: files, rows against receipts, schemas, footers, norms."""
    from pipeline.ledger import dataset
    from pipeline.verify import verify as problems_of

    (store,) = storage_of(settings)
    ledger, snapshot = dataset(store, output)
    problems = 0
    for problem in problems_of(store, ledger, snapshot):
        problems += 1
        err.print(problem, markup=False)
    if problems:
        raise BulkembedError(f"snapshot {snapshot.number} of {output}: {problems} problems")
    out.print(f"snapshot {snapshot.number}: {len(snapshot.shards)} files, {snapshot.documents:,} documents, all as their receipts say")


@app.command()
def search(
    output: Output,
    query: Annotated[str, typer.Option(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    model: Annotated[str | None, typer.Option(help="Where the dataset's model lies on this machine, if elsewhere.")] = None,
    engine: Annotated[str, typer.Option(help="vllm or simulated.")] = "vllm",
    settings: StorageOption = None,
) -> None:
    """Search the newest dataset with its own model and query prompt (reads every vector)."""
    from pipeline import report
    from pipeline.config import EngineConfig
    from pipeline.embedder import environment
    from pipeline.ledger import dataset
    from pipeline.search import dataset_model, query_vector
    from pipeline.search import search as nearest

    (store,) = storage_of(settings)
    ledger, snapshot = dataset(store, output)
    chosen = EngineConfig.model_validate({"kind": engine, "dtype": snapshot.provenance["engine_dtype"]})
    # Must stand before vLLM is imported; settings for a GPU host are vLLM's own defaults.
    described = dataset_model(snapshot, model)
    os.environ.update(environment(chosen, described, int(snapshot.provenance["max_tokens"]), len(os.sched_getaffinity(0))))
    vector = query_vector(snapshot, described, query, chosen)
    out.print(report.hits_text(nearest(store, ledger, snapshot, vector, k)), markup=False)


def storage_of(settings: list[str] | None) -> tuple[Any]:
    from pipeline.storage import Store

    values: dict[str, Any] = {}
    for setting in settings or []:
        values |= parse_setting(setting).get("storage", {})
    return (Store(values),)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def interrupt(number: int, _frame: object) -> None:
    raise InterruptedRun(number)


def catch_signals() -> None:
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
