"""Commands that look at a finished dataset: status, verify, files, search."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bulkembed.cli.console import err, out
from bulkembed.cli.options import (
    Command,
    ConfigFiles,
    DatasetModel,
    Output,
    QueryInstruction,
    QueryPromptName,
    Source,
    StorageSettings,
    places,
)
from bulkembed.errors import BulkembedError, ConfigError

if TYPE_CHECKING:
    from bulkembed.dataset.snapshots import Snapshot
    from bulkembed.inspection.resample import Resample
    from bulkembed.storage.store import Store

app = typer.Typer()


@app.command(cls=Command)
def status(config: ConfigFiles = None, output: Output = None, settings: StorageSettings = None) -> None:
    """Show the runs below an output: shards done, documents, rejects, tokens, and which is live."""
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output)
    out.print(dataset_text.status_text(at.store, at.output), markup=False)


@app.command(cls=Command)
def verify(
    config: ConfigFiles = None,
    output: Output = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Number of random rows to embed again and compare; needs the source. [default: none]")
    ] = None,
    source: Source = None,
    model: DatasetModel = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of rows.")] = 0,
    settings: StorageSettings = None,
) -> None:
    """Re-read the newest dataset: files, rows against receipts, schemas, footers, vectors."""
    from bulkembed.dataset.snapshots import newest_dataset
    from bulkembed.inspection.verify import verify as problems_of
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output, source=source, model=model)
    if sample is None and source is not None:
        raise ConfigError("source: is read with --sample N alone")
    if sample is not None and at.source is None:
        raise ConfigError("sample: needs the source (a flag --source, or a key in the --config file)")
    ledger, snapshot = newest_dataset(at.store, at.output)
    problems = 0
    for problem in problems_of(at.store, ledger, snapshot):
        problems += 1
        err.print(problem, markup=False)
    if sample and at.source:
        found = embedded_again(at.store, at.output, snapshot, at.source, sample, at.model, seed)
        out.print(dataset_text.resample_text(found), markup=False)
        for problem in found.problems:
            problems += 1
            err.print(problem, markup=False)
    if problems:
        raise BulkembedError(f"snapshot {snapshot.number} of {at.output}: {problems} problems")
    out.print(f"snapshot {snapshot.number}: {len(snapshot.shards)} files, {snapshot.documents:,} documents, all as their receipts say")


@app.command(cls=Command)
def files(config: ConfigFiles = None, output: Output = None, settings: StorageSettings = None) -> None:
    """Print the live data files, one URI a line: those of the newest snapshot, as in <output>/current.txt."""
    from bulkembed.dataset.snapshots import current_text, newest_dataset

    at = places(config, settings, output=output)
    _, snapshot = newest_dataset(at.store, at.output)
    # Bytes, since neither a terminal's encoding nor its width may change a path.
    with out.written():
        typer.echo(current_text(at.output, snapshot), nl=False)


def embedded_again(store: "Store", output: str, snapshot: "Snapshot", source: str, rows: int, model: str | None, seed: int) -> "Resample":
    from bulkembed.embedding import in_process
    from bulkembed.inspection.resample import resample
    from bulkembed.inspection.search import dataset_model
    from bulkembed.runs.lookup import recall_job
    from bulkembed.source.objects import source_objects

    described = dataset_model(snapshot, model)
    job = recall_job(store, output, source, snapshot, described)
    objects = source_objects(store, source)
    with in_process.quiet():
        return resample(job, snapshot, objects, in_process.load(described, job.recipe.vector_key.max_tokens, job.engine), rows, seed)


@app.command(cls=Command)
def search(
    query: Annotated[str, typer.Option(metavar="<string>", help="Text to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 5,
    config: ConfigFiles = None,
    output: Output = None,
    prompt_name: QueryPromptName = None,
    instruction: QueryInstruction = None,
    model: DatasetModel = None,
    engine: Annotated[
        Literal["vllm", "simulated"] | None, typer.Option(help="Engine that embeds the query. [default: the dataset's own]")
    ] = None,
    settings: StorageSettings = None,
) -> None:
    """Search the newest dataset with its own model and query prompt (reads every vector)."""
    from bulkembed.dataset.snapshots import newest_dataset
    from bulkembed.embedding import in_process
    from bulkembed.inspection.search import dataset_model, query_prompt, query_vector
    from bulkembed.inspection.search import search as nearest
    from bulkembed.report import dataset_text
    from bulkembed.runs.job import load_tokenizer
    from bulkembed.runs.lookup import recipe_of

    at = places(config, settings, output=output, model=model)
    ledger, snapshot = newest_dataset(at.store, at.output)
    key = recipe_of(at.output, snapshot).vector_key
    described = dataset_model(snapshot, at.model)
    prompt = query_prompt(described, prompt_name, instruction)
    with in_process.quiet():
        loaded = in_process.load(described, key.max_tokens, key.engine(engine or key.engine_kind))
        vector = query_vector(snapshot, load_tokenizer(described, key.max_tokens), loaded, query, prompt)
    out.print(dataset_text.hits_text(nearest(at.store, ledger, snapshot, vector, k)), markup=False)
